//! `upatch build`: C to an object that is proven safe, or no object at all.

use serde_json::json;
use upatch_verifier::Policy;

use super::args::BuildArgs;
use super::verify::{described, warnings_in_words};
use super::{Failure, Report};
use crate::apply::program::all_verified;
use crate::build::{BuildRequest, compile_and_link};

pub(super) fn run(args: &BuildArgs) -> Result<Report, Failure> {
    let built = compile_and_link(&BuildRequest {
        source: args.source.clone(),
        output: args.output.clone(),
        clang_args: args.clang.iter().map(Into::into).collect(),
    })?;
    // Whether a patch may write the program's memory is decided at apply; here only whether it is sound.
    let policy = Policy {
        allow_write: true,
        ..Policy::default()
    };
    let programs = all_verified(&built.object, &policy)
        .map_err(|error| Failure::from(error).at(args.source.display().to_string()))?;
    built.write()?;
    let output = built.output.display().to_string();
    let mut text = format!("{output}: patch {}\n", built.object.id());
    for (program, verified) in built.object.programs().iter().zip(&programs) {
        text += &format!("  {}\n", described(program, verified));
        text += &warnings_in_words(verified);
    }
    Ok(Report {
        text,
        json: json!({
            "ok": true,
            "object": output,
            "id": built.object.id(),
            "build_ids": built.object.build_ids(),
            "clang": built.clang.version,
            "programs": built.object.programs().iter().zip(&programs)
                .map(|(program, verified)| super::verify::in_json(program, verified)).collect::<Vec<_>>(),
        }),
    })
}

//! Patches as people write them, which must be accepted.

use upatch_verifier::verify;

use crate::case::{Case, Form};

pub(crate) fn check(case: &Case) -> Result<(), String> {
    let policy = case.policy()?;
    for program in case.programs(Form::Failing)? {
        let listing = program.listing();
        let verified = verify(program, &policy)
            .map_err(|rejection| format!("refused:\n{rejection}\n{listing}"))?;
        let facts = verified.facts();
        if facts.max_steps > policy.max_steps {
            return Err(format!("{} steps are more than allowed", facts.max_steps));
        }
        for wanted in case.values("warning") {
            if !facts.warnings.iter().any(|(_, text)| text.contains(wanted)) {
                return Err(format!(
                    "no warning with `{wanted}`, but {:?}",
                    facts.warnings
                ));
            }
        }
        if case.values("warning").next().is_none() && !facts.warnings.is_empty() {
            return Err(format!("warns: {:?}", facts.warnings));
        }
    }
    Ok(())
}

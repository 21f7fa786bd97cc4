//! Programs that must be refused, and their mended twins that must not.

use upatch_verifier::{Rejection, verify};

use crate::case::{Case, Form};

pub(crate) fn check(case: &Case) -> Result<(), String> {
    let policy = case.policy()?;
    let mut rejection: Option<Box<Rejection>> = None;
    for program in case.programs(Form::Failing)? {
        let listing = program.listing();
        match verify(program, &policy) {
            Err(refused) => rejection = rejection.or(Some(refused)),
            Ok(_) if rejection.is_none() => {
                return Err(format!("the failing form is accepted:\n{listing}"));
            }
            Ok(_) => {}
        }
    }
    let rejection = rejection.ok_or("the case has no program")?;
    compare(case, &rejection)
        .map_err(|wrong| format!("{wrong}; the rejection is:\n{rejection}"))?;
    for program in case.programs(Form::Mended)? {
        let listing = program.listing();
        verify(program, &policy)
            .map_err(|rejection| format!("the mended twin is refused:\n{rejection}\n{listing}"))?;
    }
    Ok(())
}

fn compare(case: &Case, rejection: &Rejection) -> Result<(), String> {
    let wanted = case.marked_line()?;
    let named = rejection.line.as_ref().map(|line| line.line);
    if named != Some(wanted) {
        return Err(format!("line {wanted} must be named, {named:?} is"));
    }
    let subject = case.value("subject")?;
    if rejection.subject != subject {
        return Err(format!(
            "the subject must be `{subject}`, not `{}`",
            rejection.subject
        ));
    }
    for (key, found) in [
        ("must", &rejection.must_hold),
        ("known", &rejection.known),
        ("hint", rejection.hint.as_ref().unwrap_or(&String::new())),
    ] {
        // `hint` is optional; the others are not.
        if key != "hint" {
            case.value(key)?;
        }
        for part in case.values(key) {
            if !found.contains(part) {
                return Err(format!("`{key}` must contain `{part}`"));
            }
        }
    }
    let shown = rejection.to_string();
    for part in [&rejection.must_hold, &rejection.known, &rejection.subject] {
        if !shown.contains(part.as_str()) {
            return Err(format!("the message must contain `{part}`"));
        }
    }
    Ok(())
}

//! What a run writes has the form that the published schemas give.

mod fake;

use cofferdam_experiment::header::Wanted;
use cofferdam_experiment::run::run;
use cofferdam_experiment::schema;
use cofferdam_placement::trial::{TrialReport, TrialSpec};
use fake::{StopAfter, spoiled};
use serde_json::{Map, Value};
use std::fs;

/// A checker of the keywords that our schemas use; another one is an error, so that none is skipped.
struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let Some(schema) = schema.as_object() else {
            return match schema {
                Value::Bool(true) => Ok(()),
                other => Err(format!("{other} allows nothing")),
            };
        };
        for (keyword, rule) in schema {
            self.keyword(schema, keyword, rule, value)?;
        }
        Ok(())
    }

    fn keyword(
        &self,
        schema: &Map<String, Value>,
        keyword: &str,
        rule: &Value,
        value: &Value,
    ) -> Result<(), String> {
        let holds = match keyword {
            "$schema" | "$defs" | "title" | "description" | "format" | "default" => true,
            "$ref" => {
                let pointer = rule.as_str().and_then(|path| path.strip_prefix('#'));
                let target = pointer.and_then(|path| self.root.pointer(path));
                self.check(target.ok_or("a reference leads nowhere")?, value)?;
                true
            }
            "type" => match rule {
                Value::Array(any) => any.iter().any(|one| is(one, value)),
                one => is(one, value),
            },
            "const" => rule == value,
            "enum" => rule.as_array().is_some_and(|all| all.contains(value)),
            // They say something about numbers only.
            "minimum" => !value.is_number() || value.as_f64() >= rule.as_f64(),
            "maximum" => !value.is_number() || value.as_f64() <= rule.as_f64(),
            "oneOf" | "anyOf" => {
                let ways = rule.as_array().ok_or("no list of ways")?;
                let fit = ways.iter().filter(|way| self.check(way, value).is_ok());
                let fit = fit.count();
                fit > 0 && (keyword == "anyOf" || fit == 1)
            }
            "required" => {
                let names = rule.as_array().ok_or("no list of names")?;
                names
                    .iter()
                    .all(|name| name.as_str().is_some_and(|name| value.get(name).is_some()))
            }
            "properties" => {
                let rules = rule.as_object().ok_or("no properties")?;
                for (name, rule) in rules {
                    if let Some(inner) = value.get(name) {
                        self.check(rule, inner)
                            .map_err(|why| format!("{name}: {why}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let named = schema.get("properties").and_then(Value::as_object);
                for (name, inner) in value.as_object().into_iter().flatten() {
                    if named.is_none_or(|named| !named.contains_key(name)) {
                        self.check(rule, inner)?;
                    }
                }
                true
            }
            "items" => {
                for inner in value.as_array().into_iter().flatten() {
                    self.check(rule, inner)?;
                }
                true
            }
            other => return Err(format!("this test does not know the keyword {other}")),
        };
        if holds {
            Ok(())
        } else {
            Err(format!("{value} breaks {keyword} {rule}"))
        }
    }
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        _ => false,
    }
}

/// The path of every key of nested objects.
fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(object) = value.as_object() {
        for (name, inner) in object {
            let path = format!("{path}/{name}");
            keys(inner, &path, found);
            found.push(path);
        }
    }
}

#[test]
fn records_and_summary_of_a_run_have_the_published_form() {
    // Arrange: every fault, so that every form of a record occurs.
    let parent = tempfile::tempdir().expect("a temporary directory");
    let wanted = Wanted {
        quick: true,
        trials: Some(1),
        ..Wanted::default()
    };
    let plan = wanted.plan().expect("the whole plan");
    let start = || spoiled(|_: &TrialSpec, _: &mut TrialReport| {});
    let out = parent.path().join("out");
    run(&plan, &out, start, &mut StopAfter::never()).expect("the fake engine never fails");
    let (trials, summary) = (schema::trials(), schema::summary());

    // Act and assert
    let checker = Checker {
        root: trials.as_value(),
    };
    let text = fs::read_to_string(out.join("trials.jsonl")).expect("records");
    let mut last = Value::Null;
    for line in text.lines() {
        last = serde_json::from_str(line).expect("JSON");
        checker
            .check(checker.root, &last)
            .expect("the form of a record");
    }
    let checker = Checker {
        root: summary.as_value(),
    };
    let part = parent.path().join("part");
    run(&plan, &part, start, &mut StopAfter::trials(20)).expect("it stops");
    for of in [&out, &part] {
        let written = fs::read(of.join("summary.json")).expect("a summary");
        let written: Value = serde_json::from_slice(&written).expect("JSON");
        checker
            .check(checker.root, &written)
            .expect("the form of a summary");
    }

    // A record that is wrong anywhere is refused.
    let checker = Checker {
        root: trials.as_value(),
    };
    let mut paths = Vec::new();
    keys(&last, "", &mut paths);
    assert!(paths.len() > 50, "{paths:?}");
    for path in paths {
        let mut wrong = last.clone();
        *wrong.pointer_mut(&path).expect("it is there") = Value::from(vec![Value::Null; 2]);
        assert!(checker.check(checker.root, &wrong).is_err(), "{path}");
    }
    let mut without = last.clone();
    without
        .as_object_mut()
        .expect("an object")
        .remove("verdict");
    assert!(checker.check(checker.root, &without).is_err());
}

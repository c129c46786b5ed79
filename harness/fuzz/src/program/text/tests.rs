use super::*;
use crate::target::Argument;
use proptest::prelude::*;

const CALLS: &[CallSpec] = &[
    CallSpec {
        name: "read",
        arguments: &[Argument {
            name: "sector",
            least: 0,
            most: 7,
        }],
    },
    CallSpec {
        name: "flush",
        arguments: &[],
    },
];

fn trigger() -> impl Strategy<Value = Trigger> {
    (0..EVENTS.len(), any::<u32>()).prop_map(|(event, nth)| Trigger {
        event: EVENTS[event],
        nth,
    })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..20)
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<u32>(), bytes()).prop_map(|(offset, bytes)| Edit::Overwrite { offset, bytes }),
        Just(Edit::Drop),
        any::<u32>().prop_map(|slot| Edit::Repeat { slot }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..2_u16, proptest::collection::vec(any::<u64>(), 0..4))
            .prop_map(|(call, arguments)| Action::Call { call, arguments }),
        (0..6_u8, any::<u32>(), any::<u32>(), any::<u64>()).prop_map(
            |(bar, offset, nth, value)| Action::Reply {
                register: Register { bar, offset },
                nth,
                value
            }
        ),
        (any::<u16>(), any::<u32>(), any::<u32>())
            .prop_map(|(offset, nth, value)| Action::Config { offset, nth, value }),
        (0..CARRIED.len(), any::<u32>(), edit()).prop_map(|(carried, nth, edit)| Action::Edit {
            carried: CARRIED[carried],
            nth,
            edit
        }),
        (trigger(), any::<u16>(), any::<u32>(), bytes()).prop_map(
            |(when, mapping, offset, bytes)| Action::Poke {
                when,
                mapping,
                offset,
                bytes
            }
        ),
        (trigger(), any::<u16>()).prop_map(|(when, vector)| Action::Interrupt { when, vector }),
        any::<u32>().prop_map(|nth| Action::Lose { nth }),
        (trigger(), any::<u32>()).prop_map(|(when, micros)| Action::Stall { when, micros }),
        trigger().prop_map(|when| Action::Remove { when }),
        bytes().prop_map(|bytes| Action::Answers { bytes }),
    ]
}

fn program() -> impl Strategy<Value = Program> {
    let mode = prop_oneof![Just(Mode::Model), Just(Mode::Hostile)];
    let actions = proptest::collection::vec(action(), 0..12);
    (mode, actions).prop_map(|(mode, actions)| Program { mode, actions })
}

proptest! {
    #[test]
    fn printed_program_parses_to_itself(program in program()) {
        let text = print(&program, "virtio-blk", CALLS);

        let parsed = parse(&text, CALLS);

        let target = "virtio-blk".to_owned();
        prop_assert_eq!(parsed, Ok(Parsed { target, program }), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}", tail in "[a-z0-9#+=: \\n]{0,80}") {
        let _ = parse(&text, CALLS);
        let _ = parse(&format!("{VERSION}\ntarget t\nmode model\n{tail}{text}"), CALLS);
    }
}

fn error(body: &str) -> (usize, usize, String) {
    let error = parse(&format!("{VERSION}\ntarget t\n{body}"), CALLS).unwrap_err();
    (error.line, error.column, error.why)
}

#[test]
fn errors_tell_line_and_column() {
    let cases = [
        ("mode odd\n", 3, 6, "found `odd`"),
        ("mode model\n\n  jump 3\n", 5, 3, "found `jump`"),
        ("mode model\ncall read x\n", 4, 11, "found `x`"),
        ("mode model\ncall fly\n", 4, 6, "read, flush"),
        ("mode model\nreply 9:0 #1 = 0\n", 4, 7, "found `9:0`"),
        ("mode model\nlose #1 2\n", 4, 9, "end of the line"),
        ("mode model\nanswers abc\n", 4, 9, "two hexadecimal digits"),
        ("mode model\npoke read #1 m0 +1\n", 4, 19, "expected `=`"),
    ];
    for (body, line, column, why) in cases {
        let found = error(body);
        assert_eq!((found.0, found.1), (line, column), "{body}: {}", found.2);
        assert!(found.2.contains(why), "{body}: {}", found.2);
    }
}

#[test]
fn other_versions_are_refused() {
    let error = parse("cofferdam program 2\ntarget t\nmode model\n", CALLS).unwrap_err();
    assert_eq!((error.line, error.column), (1, 19));
}

#[test]
fn comments_and_blank_lines_say_nothing() {
    let text =
        format!("{VERSION}\ntarget t # whom\n\n# all of it\nmode hostile\nlose #2 # late\n#\n");
    let parsed = parse(&text, CALLS).unwrap();
    assert_eq!(parsed.program.actions, [Action::Lose { nth: 2 }]);
    assert_eq!(target_of(&text).as_deref(), Ok("t"));
}

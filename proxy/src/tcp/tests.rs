//! What is concluded from the end of a connection. The rest is tested with a real server pair.

use super::outcome::{Ending, Outcome};

#[test]
fn what_was_answered_is_known_and_what_broke_off_is_not() {
    use Ending::{Broken, Closed, GivenUp};
    for (ending, unanswered, shut, expected) in [
        (Closed, false, false, Outcome::Known),
        (Closed, false, true, Outcome::Known),
        (Closed, true, true, Outcome::Known),
        (Closed, true, false, Outcome::Unknown),
        (Broken, false, false, Outcome::Known),
        (Broken, true, false, Outcome::Unknown),
        (Broken, true, true, Outcome::Unknown),
        (GivenUp, false, true, Outcome::Known),
        (GivenUp, true, false, Outcome::Unknown),
        (GivenUp, true, true, Outcome::Unknown),
    ] {
        let found = Outcome::of(ending, unanswered, shut);
        assert_eq!(
            found, expected,
            "{ending:?} unanswered {unanswered} shut {shut}"
        );
    }
}

//! The rules that can decide, as the short stable words `explain-sql` prints.
//!
//! A word stays once it was released: operators search logs for it. The words of [`Effect`] are
//! rules too.
//!
//! [`Effect`]: super::Effect

/// Longer than the limit.
pub const TOO_LARGE: &str = "too-large";
/// A zero byte, which the protocol does not allow inside a text.
pub const ZERO_BYTE: &str = "zero-byte";
/// Not UTF-8.
pub const NOT_UTF8: &str = "not-utf8";
/// Written in a client encoding in which a character may contain a backslash byte.
pub const ENCODING: &str = "encoding";
/// Means something else with `standard_conforming_strings` off, and the setting is not known.
pub const STRINGS: &str = "strings";
/// Refused by PostgreSQL's grammar.
pub const UNPARSABLE: &str = "unparsable";
/// Nested too deeply to be looked through.
pub const TOO_DEEP: &str = "too-deep";
/// A run of operator characters on which the parser would spend too long.
pub const TOO_COSTLY: &str = "too-costly";
/// Contains a construct this version does not know.
pub const SYNTAX: &str = "syntax";

/// A query in which nothing but built-in, effect-free parts was found.
pub const QUERY: &str = "query";
/// EXPLAIN that only plans.
pub const PLAN: &str = "plan";
/// SHOW.
pub const SHOW: &str = "show";
/// CHECKPOINT: writes out what is there, changes nothing.
pub const CHECKPOINT: &str = "checkpoint";

/// BEGIN, COMMIT, ROLLBACK and savepoints.
pub const TRANSACTION: &str = "transaction";
/// SET and RESET.
pub const SETTING: &str = "setting";
/// LISTEN, DISCARD, PREPARE, DEALLOCATE, CLOSE.
pub const SESSION: &str = "session";

/// Calls a function that is not known to be free of effects.
pub const FUNCTION: &str = "function";
/// Reads a view or table of which more has to be known, or one that the catalog does not know.
pub const RELATION: &str = "relation";
/// A name that is most likely a built-in one's, in a database whose catalog is not known.
pub const NO_CATALOG: &str = "no-catalog";
/// Changes a table for which a rule says what happens instead; PostgreSQL decides.
pub const REWRITTEN: &str = "rewritten";
/// Uses an operator that is not built in.
pub const OPERATOR: &str = "operator";
/// Names a type that is not built in; a domain's CHECK or a cast may run code.
pub const TYPE: &str = "type";
/// Takes a field of an expression, which may be a function call in disguise.
pub const FIELD: &str = "field";
/// FETCH or MOVE: the cursor's query decides.
pub const CURSOR: &str = "cursor";
/// EXECUTE: the prepared statement decides.
pub const EXECUTE: &str = "execute";
/// CALL or DO: run inside a read-only transaction of our own.
pub const PROCEDURE: &str = "procedure";
/// Changes a table that is, or may be, temporary.
pub const TEMPORARY: &str = "temporary";

/// INSERT, UPDATE, DELETE, MERGE.
pub const DML: &str = "dml";
/// Definition of objects and rights, and every statement not named elsewhere.
pub const DDL: &str = "ddl";
/// SELECT INTO and CREATE TABLE AS.
pub const INTO: &str = "into";
/// FOR UPDATE and its weaker forms, which mark the rows.
pub const ROW_LOCK: &str = "row-lock";
/// COPY into a table.
pub const COPY_FROM: &str = "copy-from";
/// nextval and setval.
pub const SEQUENCE: &str = "sequence";
/// Would lift the read-only setting wall two stands on.
pub const WAY_OUT: &str = "way-out";

/// Every rule but those of effects, in the order above.
pub const ALL: &[&str] = &[
    TOO_LARGE,
    ZERO_BYTE,
    NOT_UTF8,
    ENCODING,
    STRINGS,
    UNPARSABLE,
    TOO_DEEP,
    TOO_COSTLY,
    SYNTAX,
    QUERY,
    PLAN,
    SHOW,
    CHECKPOINT,
    TRANSACTION,
    SETTING,
    SESSION,
    FUNCTION,
    RELATION,
    NO_CATALOG,
    REWRITTEN,
    OPERATOR,
    TYPE,
    FIELD,
    CURSOR,
    EXECUTE,
    PROCEDURE,
    TEMPORARY,
    DML,
    DDL,
    INTO,
    ROW_LOCK,
    COPY_FROM,
    SEQUENCE,
    WAY_OUT,
];

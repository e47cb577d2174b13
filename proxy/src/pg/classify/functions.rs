//! Functions whose effects outlive the statement although PostgreSQL's read-only mode lets them
//! pass, and the few it stops that are worth telling by name.
//!
//! They are matched by name alone, whatever the schema: extensions are installed anywhere, and a
//! user's function of such a name is rarely harmless. Names of PostgreSQL 13 to 18 and of the
//! extensions it ships with.

use super::names::Name;
use super::policy::Effect;

/// What is known about a function from its name.
pub(super) enum Known {
    /// Leaves nothing durable behind.
    Safe,
    /// Moves a sequence; read-only mode refuses it.
    Sequence,
    /// Changes a setting, possibly one wall two stands on; its arguments decide.
    SetConfig,
    /// Has this effect.
    Effect(Effect),
    /// Nothing; the catalog could tell.
    Nothing,
}

/// Whether PostgreSQL ships a function of this name and every one of them leaves nothing behind.
pub(crate) fn is_safe(name: &str) -> bool {
    super::names::is_safe_function(name)
}

/// Built-in functions, and those of shipped extensions, that run a text they are given.
pub(crate) fn runs_text(name: &str) -> bool {
    const RUNNERS: &[&str] = &[
        "query_to_xml",
        "query_to_xml_and_xmlschema",
        "query_to_xmlschema",
        "cursor_to_xml",
        "ts_stat",
        "ts_rewrite",
        "crosstab",
        "crosstab2",
        "crosstab3",
        "crosstab4",
        "connectby",
        "xpath_table",
    ];
    RUNNERS.contains(&name)
}

/// Looks a function up by its name alone.
pub(super) fn look_up(name: &Name<'_>) -> Known {
    match name.local {
        "nextval" | "setval" => Known::Sequence,
        "set_config" => Known::SetConfig,
        local => match effect(local) {
            Some(effect) => Known::Effect(effect),
            None if name.is_safe_function() => Known::Safe,
            None => Known::Nothing,
        },
    }
}

/// The effect a function of this name has.
pub(crate) fn effect(name: &str) -> Option<Effect> {
    Some(match name {
        "txid_current" | "pg_current_xact_id" => Effect::AssignXid,
        "dblink" | "dblink_exec" | "dblink_open" | "dblink_send_query" => Effect::Dblink,
        "lo_creat" | "lo_create" | "lo_from_bytea" | "lo_import" | "lo_put" | "lo_truncate"
        | "lo_truncate64" | "lo_unlink" | "lowrite" => Effect::LargeObjects,
        "pg_logical_emit_message" => Effect::LogicalMessage,
        "brin_desummarize_range"
        | "brin_summarize_new_values"
        | "brin_summarize_range"
        | "gin_clean_pending_list"
        | "heap_force_freeze"
        | "heap_force_kill"
        | "pg_truncate_visibility_map" => Effect::Maintenance,
        "pg_notify" => Effect::Notify,
        "lo_export" | "pg_file_rename" | "pg_file_sync" | "pg_file_unlink" | "pg_file_write" => {
            Effect::ServerFiles
        }
        "pg_clear_attribute_stats"
        | "pg_clear_relation_stats"
        | "pg_restore_attribute_stats"
        | "pg_restore_relation_stats"
        | "pg_set_attribute_stats"
        | "pg_set_relation_stats" => Effect::Statistics,
        "pg_create_restore_point" | "pg_log_standby_snapshot" | "pg_switch_wal" => Effect::Wal,
        "pg_backup_start"
        | "pg_backup_stop"
        | "pg_import_system_collations"
        | "pg_promote"
        | "pg_start_backup"
        | "pg_stop_backup"
        | "pg_stop_making_pinned_objects"
        | "pg_wal_replay_pause"
        | "pg_wal_replay_resume" => Effect::Server,
        _ => return effect_by_prefix(name),
    })
}

/// Families that grow with each version.
fn effect_by_prefix(name: &str) -> Option<Effect> {
    const FAMILIES: &[(&str, Effect)] = &[
        ("binary_upgrade_", Effect::Server),
        ("pg_copy_logical_replication_slot", Effect::Replication),
        ("pg_copy_physical_replication_slot", Effect::Replication),
        ("pg_create_logical_replication_slot", Effect::Replication),
        ("pg_create_physical_replication_slot", Effect::Replication),
        ("pg_drop_replication_slot", Effect::Replication),
        ("pg_logical_slot_get_", Effect::Replication),
        ("pg_replication_origin_advance", Effect::Replication),
        ("pg_replication_origin_create", Effect::Replication),
        ("pg_replication_origin_drop", Effect::Replication),
        ("pg_replication_origin_session_reset", Effect::Replication),
        ("pg_replication_origin_session_setup", Effect::Replication),
        ("pg_replication_origin_xact_", Effect::Replication),
        ("pg_replication_slot_advance", Effect::Replication),
        ("pg_sync_replication_slots", Effect::Replication),
        ("pg_stat_reset", Effect::Statistics),
        ("pg_stat_statements_reset", Effect::Statistics),
    ];
    FAMILIES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map(|(_, effect)| *effect)
}

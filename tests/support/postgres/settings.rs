//! What a throw-away cluster is configured with.
//!
//! The text goes to `postgresql.conf`, so it travels with a base backup and with pg_rewind.
//! Ports don't: they are given on the command line, since two clusters share the text.

/// How a cluster differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether commits reach the disk. Off makes tests quick; a crash of a process (not of the
    /// machine) loses nothing by it.
    pub fsync: bool,
    /// Further settings, as on the command line: these can't be changed by `ALTER SYSTEM`.
    pub settings: Vec<(String, String)>,
    /// Lines of `pg_hba.conf` that come before those that let everybody in.
    pub hba: String,
}

/// Login of the cluster's owner.
pub const SUPERUSER: &str = "postgres";

/// Everybody may log in from this machine, and nobody from elsewhere can reach it.
pub(super) const HBA: &str = "\
host replication all 127.0.0.1/32 trust
host all         all 127.0.0.1/32 trust
";

pub(super) fn text(options: &Options) -> String {
    let fsync = if options.fsync { "on" } else { "off" };
    // wal_keep_size: there is no slot, and a standby that rejoins needs the log since the fork.
    // dynamic_shared_memory_type: files in the data folder leave nothing behind after SIGKILL.
    // max_connections: a proxy's sessions on both sides of a move, with room for the tests' own.
    format!(
        "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = {fsync}
max_connections = 200
shared_buffers = '64MB'
dynamic_shared_memory_type = mmap
wal_level = replica
wal_log_hints = on
wal_keep_size = '512MB'
max_wal_size = '2GB'
checkpoint_timeout = '1h'
hot_standby = on
max_wal_senders = 8
max_prepared_transactions = 10
autovacuum = off
log_line_prefix = '%m [%p] %b %a '
"
    )
}

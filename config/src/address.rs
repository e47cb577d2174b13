//! Addresses: where we listen, and where a server is.

use std::net::SocketAddr;

use toml::de::DeValue;

use crate::defaults;
use crate::keywords;
use crate::upstream::Endpoint;
use crate::value::{Wrong, shown};

const LISTEN: &str = "an IP address with a port, such as \"127.0.0.1:6432\" or \"[::]:6432\"";
const POSTGRES: &str = "\"host=NAME port=5432\"";
const HTTP: &str = "a URL such as \"http://127.0.0.1:8080\"";

/// An address to listen on. Host names are refused: what they stand for may change under us, and
/// a listener that moved silently is a fence with a hole.
pub(crate) fn listen(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
    let wrong = |what: &str| Wrong::value(format!("{} {what}", shown(value)), LISTEN);
    let text = value.as_str().ok_or_else(|| wrong("is not a text"))?;
    let address: SocketAddr = text.parse().map_err(|_| wrong("is not an address"))?;
    if address.port() == 0 {
        Err(wrong("leaves the port open"))
    } else {
        Ok(address)
    }
}

/// As [`listen`], or switched off by `"off"` or an empty text.
pub(crate) fn listen_or_off(value: &DeValue<'_>) -> Result<Option<SocketAddr>, Wrong> {
    match value.as_str() {
        Some("" | "off") => Ok(None),
        _ => listen(value).map(Some).map_err(|wrong| Wrong {
            accepted: format!("{}, or \"off\"", wrong.accepted),
            ..wrong
        }),
    }
}

/// A server, as a libpq keyword string of which host and port are used.
pub(crate) fn postgres(value: &DeValue<'_>) -> Result<Endpoint, Wrong> {
    let wrong = |what: &str| Wrong::value(what, POSTGRES);
    let text = value.as_str().ok_or_else(|| wrong("is not a text"))?;
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Err(wrong("a URL is not read here"));
    }
    let mut host = None;
    let mut port = defaults::POSTGRES_PORT;
    for (keyword, setting) in keywords::parse(text).map_err(|what| wrong(&what))? {
        match keyword.as_str() {
            "host" => host = Some(upstream_host(setting)?),
            "port" => port = upstream_port(&setting)?,
            other => return Err(elsewhere(other)),
        }
    }
    let host = host.ok_or_else(|| wrong("names no host"))?;
    Ok(Endpoint { host, port })
}

fn upstream_host(host: String) -> Result<String, Wrong> {
    let wrong = |what: &str| Err(Wrong::value(what, POSTGRES));
    match host.as_str() {
        "" => wrong("names an empty host"),
        host if host.starts_with(['/', '@']) => {
            wrong("a Unix socket is no upstream here, only TCP")
        }
        host if host.contains(',') => wrong("several hosts are several regions here"),
        host if host.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            wrong("the host holds a space or a control character")
        }
        _ => Ok(host),
    }
}

fn upstream_port(port: &str) -> Result<u16, Wrong> {
    let parsed = port.parse().ok().filter(|port| *port != 0);
    parsed.ok_or_else(|| Wrong::value("the port is not a number from 1 to 65535", POSTGRES))
}

/// libpq has these keywords too; each has its own place here, or none.
fn elsewhere(keyword: &str) -> Wrong {
    let instead = match keyword {
        "user" => "`user` on a line of its own, or none to keep each session's own user",
        "password" | "passfile" => "`passfile` or `password_env` on a line of its own",
        "dbname" => "no database: each session's own is used",
        "connect_timeout" => "`connect_timeout` under [limits]",
        "hostaddr" => "the address as host=",
        _ => POSTGRES,
    };
    let later = keyword.starts_with("ssl") || keyword == "channel_binding";
    let shown: String = keyword.chars().take(32).collect();
    if later {
        Wrong::later(format!("{shown} is not in this version"), POSTGRES)
    } else {
        Wrong::value(format!("{shown} does not belong here"), instead)
    }
}

/// A server of any protocol, as a host and a port.
pub(crate) fn tcp(value: &DeValue<'_>) -> Result<Endpoint, Wrong> {
    const TCP: &str = "a host and a port such as \"10.0.0.1:6379\" or \"[::1]:6379\"";
    let wrong = |what: &str| Wrong::value(format!("{} {what}", shown(value)), TCP);
    let text = value.as_str().ok_or_else(|| wrong("is not a text"))?;
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
    let port = upstream_port(port).map_err(|_| wrong("has no port from 1 to 65535"))?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let sound = |host: &str| {
        !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@,[]".contains(c))
    };
    match bare {
        Some(bare) if sound(bare) => Ok(Endpoint {
            host: bare.to_owned(),
            port,
        }),
        None if sound(host) && !host.contains(':') => Ok(Endpoint {
            host: host.to_owned(),
            port,
        }),
        _ => Err(wrong("names no host")),
    }
}

/// An HTTP origin.
pub(crate) fn http(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = value
        .as_str()
        .ok_or_else(|| Wrong::value("is not a text", HTTP))?;
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    match host {
        Some(host) if host.contains('@') => Err(Wrong::value("a URL must hold no login", HTTP)),
        Some(host) if !host.is_empty() && !text.contains(char::is_whitespace) => {
            Ok(text.to_owned())
        }
        _ => Err(Wrong::value("is not a URL", HTTP)),
    }
}

//! What every verb works with: the client, the group asked for, and where to print.

use writefence_admin::api::{ApiError, Code, GroupStatus, Status};
use writefence_admin::client::{Client, ClientError};

use crate::args::{self, Global};
use crate::out::Out;

/// The surroundings of a verb.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) out: Out,
    groups: Groups,
}

/// What `--group` says.
enum Groups {
    Unnamed,
    Named(Vec<String>),
    All,
}

impl Context {
    pub(crate) fn new(global: Global, out: Out) -> Result<Self, ApiError> {
        let tcp = [
            global.url.is_some(),
            global.cert.is_some(),
            global.key.is_some(),
            global.ca.is_some(),
        ];
        if tcp.contains(&true) {
            let what =
                "--url, --cert, --key and --ca (the admin API over TCP) are not in this version";
            return Err(ApiError::new(Code::NotInThisVersion, what)
                .hint("run writefencectl beside the daemon and name its socket with --socket"));
        }
        let client = Client::new(args::socket(&global), global.timeout);
        Ok(Self {
            client,
            out,
            groups: Groups::parse(global.group.as_deref())?,
        })
    }

    /// The one group that a verb concerns.
    pub(crate) async fn group(&self) -> Result<String, ApiError> {
        match &self.groups {
            Groups::Named(names) if names.len() == 1 => Ok(names[0].clone()),
            Groups::Named(_) => Err(several()),
            Groups::Unnamed | Groups::All => self.only_group().await,
        }
    }

    /// The groups that a verb concerns, each once, in the order in which they were named.
    pub(crate) async fn groups(&self) -> Result<Vec<String>, ApiError> {
        match &self.groups {
            Groups::Named(names) => {
                let mut once = names.clone();
                let mut seen = std::collections::HashSet::new();
                once.retain(|name| seen.insert(name.clone()));
                if once.len() > 1 {
                    // A name that does not exist is told before anything is begun elsewhere.
                    self.status().await?;
                }
                Ok(once)
            }
            Groups::Unnamed => Ok(vec![self.only_group().await?]),
            Groups::All => {
                let status = self.client.status().await;
                let groups = status.map_err(ClientError::into_document)?.groups;
                Ok(groups.into_iter().map(|group| group.name).collect())
            }
        }
    }

    async fn only_group(&self) -> Result<String, ApiError> {
        let groups = self
            .client
            .status()
            .await
            .map_err(ClientError::into_document)?
            .groups;
        match (groups.as_slice(), &self.groups) {
            ([only], _) => Ok(only.name.clone()),
            (_, Groups::All) => Err(several()),
            (groups, _) => Err(ApiError::new(
                Code::GroupNotNamed,
                format!("there are {} groups, and none is named", groups.len()),
            )
            .hint(format!("add --group with one of: {}", names(groups)))),
        }
    }

    /// The status, with the groups asked for.
    pub(crate) async fn status(&self) -> Result<Status, ApiError> {
        let mut status = self
            .client
            .status()
            .await
            .map_err(ClientError::into_document)?;
        let Groups::Named(wanted) = &self.groups else {
            return Ok(status);
        };
        let known = |name: &&String| status.groups.iter().any(|group| group.name == **name);
        if let Some(missing) = wanted.iter().find(|name| !known(name)) {
            return Err(
                ApiError::new(Code::NoSuchGroup, format!("there is no group {missing}"))
                    .hint(format!("these are configured: {}", names(&status.groups))),
            );
        }
        status.groups.retain(|group| wanted.contains(&group.name));
        Ok(status)
    }
}

impl Groups {
    fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        let Some(text) = text else {
            return Ok(Self::Unnamed);
        };
        if text == "all" {
            return Ok(Self::All);
        }
        let names: Vec<_> = text.split(',').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) {
            let what = format!("--group {text:?} has an empty name");
            return Err(ApiError::new(Code::BadRequest, what)
                .hint("a group, several with commas between them, or `all` is accepted"));
        }
        Ok(Self::Named(names))
    }
}

fn several() -> ApiError {
    ApiError::new(
        Code::BadRequest,
        "this command is for one group, and several are named",
    )
    .hint("repeat it for each group")
}

fn names(groups: &[GroupStatus]) -> String {
    let names: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
    names.join(", ")
}

//! What the gate would say to an HTTP request.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use writefence_admin::api::{
    ApiError, Code, ExplainHttp, ExplainHttpListener, ExplainHttpRequest, FenceAnswer, HttpVerdict,
};
use writefence_config::Answer;

use super::desk::Desk;
use crate::http::classify::{Judged, Request, Rules, Verdict};

/// Judges the request as each HTTP listener of the group would.
pub(crate) fn explain(desk: &Desk, ask: &ExplainHttpRequest) -> Result<ExplainHttp, ApiError> {
    let rules = desk.group.rules.load();
    if rules.is_empty() {
        let what = format!("group {} has no HTTP listener", desk.group.name);
        return Err(bad(what, "add [[group.NAME.listen]] with kind = \"http\""));
    }
    let asked = Asked::read(ask)?;
    let each = rules.iter();
    let listeners: Vec<_> = each
        .map(|(address, rules)| asked.judged_by(&address.to_string(), rules))
        .collect();
    let verdict = listeners.iter().map(|one| one.verdict).max();
    Ok(ExplainHttp {
        verdict: verdict.unwrap_or(HttpVerdict::Write),
        listeners,
    })
}

/// The request with its parts taken apart.
struct Asked<'a> {
    method: &'a str,
    host: String,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn read(ask: &'a ExplainHttpRequest) -> Result<Self, ApiError> {
        let sound = Method::from_bytes(ask.method.as_bytes());
        sound.map_err(|_| bad(format!("{:?} is no method", ask.method), "GET, POST, …"))?;
        let wrong = |_| {
            bad(
                format!("{:?} is no URL", ask.url),
                "https://HOST/PATH, or /PATH",
            )
        };
        let url: Uri = ask.url.parse().map_err(wrong)?;
        let mut headers = HeaderMap::new();
        for line in &ask.headers {
            let (name, value) = header(line)?;
            headers.append(name, value);
        }
        let host = headers
            .get(http::header::HOST)
            .and_then(|host| host.to_str().ok());
        Ok(Self {
            method: &ask.method,
            host: url.host().or(host).unwrap_or_default().to_owned(),
            path: url.path().to_owned(),
            query: url.query().map(str::to_owned),
            headers,
            body: ask.body.as_deref(),
        })
    }

    fn judged_by(&self, address: &str, rules: &Rules) -> ExplainHttpListener {
        let request = Request {
            method: self.method,
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        };
        let mut judged = rules.judge(&request);
        if let Some(body) = self.body {
            judged = rules.judge_body(&request, judged, body.as_bytes());
        }
        document(address, rules, &judged)
    }
}

fn document(address: &str, rules: &Rules, judged: &Judged) -> ExplainHttpListener {
    let manner = rules.manner(judged);
    ExplainHttpListener {
        address: address.to_owned(),
        verdict: match judged.verdict {
            Verdict::Read => HttpVerdict::Read,
            Verdict::NeedsBody(_) => HttpVerdict::NeedsBody,
            Verdict::Write => HttpVerdict::Write,
        },
        rule: judged.rule.to_owned(),
        route: judged.route.and_then(|route| u64::try_from(route).ok()),
        answer: manner.answer.map(|answer| match answer {
            Answer::Hold => FenceAnswer::Hold,
            Answer::Reject => FenceAnswer::Reject,
        }),
        write_deadline_ms: u64::try_from(manner.write_deadline.as_millis()).unwrap_or(u64::MAX),
    }
}

fn header(line: &str) -> Result<(HeaderName, HeaderValue), ApiError> {
    let wrong = || bad(format!("{line:?} is no header"), "NAME: VALUE");
    let (name, value) = line.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
    Ok((name, value))
}

fn bad(what: String, hint: &str) -> ApiError {
    ApiError::new(Code::BadRequest, what).hint(hint)
}

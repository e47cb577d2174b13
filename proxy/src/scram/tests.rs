//! Our two sides with each other, and ours with another's client.

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use super::*;

const HASH: &[u8] = &[7; 32];

/// postgres-protocol's client against our server.
fn log_in(
    password: &str,
    verifier: &Verifier,
    client: ChannelBinding,
    mechanism: &str,
    binding: Binding<'_>,
) -> Result<Option<Keys>, Offence> {
    let mut scram = ScramSha256::new(password.as_bytes(), client);
    let (server, answer) = Server::first(
        mechanism.as_bytes(),
        scram.message(),
        binding,
        verifier.clone(),
    )?;
    scram.update(answer.as_bytes()).unwrap();
    let Some(proven) = server.last(scram.message())? else {
        return Ok(None);
    };
    scram.finish(proven.last.as_bytes()).unwrap();
    Ok(Some(proven.keys))
}

#[test]
fn the_right_password_logs_in_and_leaves_a_key_and_the_wrong_one_does_not() {
    let verifier = Verifier::of_password("pencil").unwrap();
    let binding = ChannelBinding::unsupported;
    let keys = log_in("pencil", &verifier, binding(), PLAIN, Binding::None);
    assert!(keys.unwrap().is_some());
    let none = log_in("pen", &verifier, binding(), PLAIN, Binding::None);
    assert!(none.unwrap().is_none());
    let mock = Verifier::mock(b"secret", "ann", 4096);
    let none = log_in("pencil", &mock, binding(), PLAIN, Binding::None);
    assert!(none.unwrap().is_none());
}

#[test]
fn a_key_that_was_recovered_logs_in_where_the_verifier_is_the_same_and_nowhere_else() {
    let verifier = Verifier::of_password("pencil").unwrap();
    let keys = log_in(
        "pencil",
        &verifier,
        ChannelBinding::unsupported(),
        PLAIN,
        Binding::None,
    );
    let keys = keys.unwrap().unwrap();
    let again = |verifier: &Verifier, binding, end_point: Option<&[u8]>| {
        let mut client = Client::new(matches!(binding, Binding::EndPoint(_)), end_point);
        let first = client.first();
        let (server, answer) = Server::first(
            client.mechanism().as_bytes(),
            first.as_bytes(),
            binding,
            verifier.clone(),
        )
        .unwrap();
        let last = client.last(answer.as_bytes(), &keys)?;
        let proven = server.last(last.as_bytes()).unwrap().unwrap();
        client.finish(proven.last.as_bytes(), &keys)
    };
    assert_eq!(again(&verifier, Binding::None, None), Ok(()));
    assert_eq!(again(&verifier, Binding::None, Some(HASH)), Ok(()));
    assert_eq!(
        again(&verifier, Binding::EndPoint(HASH), Some(HASH)),
        Ok(())
    );
    // The same password with another salt, as a logical copy has it.
    let other = Verifier::of_password("pencil").unwrap();
    assert_eq!(
        again(&other, Binding::None, None),
        Err(ClientError::OtherVerifier)
    );
}

#[test]
fn a_server_without_the_verifier_cannot_prove_itself() {
    let verifier = Verifier::of_password("pencil").unwrap();
    let keys = log_in(
        "pencil",
        &verifier,
        ChannelBinding::unsupported(),
        PLAIN,
        Binding::None,
    );
    let keys = keys.unwrap().unwrap();
    let mut client = Client::new(false, None);
    let answer = format!(
        "{}x,s={},i={}",
        client.first().strip_prefix("n,,n=,").unwrap(),
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &verifier.salt),
        verifier.iterations
    );
    client.last(answer.as_bytes(), &keys).unwrap();
    let forged = "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(
        client.finish(forged.as_bytes(), &keys),
        Err(ClientError::Impostor)
    );
}

#[test]
fn channel_binding_holds_only_for_the_certificate_that_the_client_saw() {
    let verifier = Verifier::of_password("pencil").unwrap();
    let seen = |hash: &[u8]| ChannelBinding::tls_server_end_point(hash.to_vec());
    let ours = Binding::EndPoint(HASH);
    assert!(
        log_in("pencil", &verifier, seen(HASH), PLUS, ours)
            .unwrap()
            .is_some()
    );
    let between = log_in("pencil", &verifier, seen(&[8; 32]), PLUS, ours);
    assert_eq!(between, Err(Offence::Binding));
    let led_on = log_in(
        "pencil",
        &verifier,
        ChannelBinding::unrequested(),
        PLAIN,
        ours,
    );
    assert_eq!(led_on, Err(Offence::Downgrade));
    let not_offered = log_in("pencil", &verifier, seen(HASH), PLUS, Binding::None);
    assert_eq!(not_offered, Err(Offence::Mechanism));
    let mixed = log_in("pencil", &verifier, seen(HASH), PLAIN, ours);
    assert_eq!(mixed, Err(Offence::Binding));
    // A client that does not want it may do without.
    let without = log_in(
        "pencil",
        &verifier,
        ChannelBinding::unsupported(),
        PLAIN,
        ours,
    );
    assert!(without.unwrap().is_some());
}

#[test]
fn messages_that_no_client_sends_are_refused() {
    let verifier = Verifier::of_password("pencil").unwrap();
    let first = |message: &[u8]| {
        Server::first(PLAIN.as_bytes(), message, Binding::None, verifier.clone()).map(|_| ())
    };
    assert_eq!(first(b"n,,n=,r=abc"), Ok(()));
    assert_eq!(first(b"n,a=ann,n=,r=abc"), Err(Offence::Authorization));
    assert_eq!(first(b"p=tls-unique,,n=,r=abc"), Err(Offence::Binding));
    for broken in [
        &b""[..],
        b"n",
        b"n,",
        b"n,,",
        b"n,,n=",
        b"n,,n=,r=",
        b"n,,m=x,n=,r=abc",
        b"n,,n=,r=a c",
        b"\xff,,n=,r=abc",
    ] {
        assert_eq!(
            first(broken),
            Err(Offence::Malformed),
            "{}",
            broken.escape_ascii()
        );
    }
    let last = |message: &str| {
        let (server, _) = Server::first(
            PLAIN.as_bytes(),
            b"n,,n=,r=abc",
            Binding::None,
            verifier.clone(),
        )
        .unwrap();
        server
            .last(message.as_bytes())
            .map(|proven| proven.is_some())
    };
    let proof = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for broken in [
        String::new(),
        "c=biws".into(),
        "c=biws,r=abc,p=AAAA".into(),
        // Another nonce than ours.
        format!("c=biws,r=abc,p={proof}"),
    ] {
        assert_eq!(last(&broken), Err(Offence::Malformed), "{broken}");
    }
    assert_eq!(
        last(&format!("c=eSws,r=abc,p={proof}")),
        Err(Offence::Binding)
    );
}

#[test]
fn a_verifier_is_read_as_the_server_writes_it_and_nothing_else() {
    let text = "SCRAM-SHA-256$4096:AAAAAAAAAAAAAAAAAAAAAA==$\
                AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(Verifier::parse(text).unwrap().iterations(), 4096);
    for broken in [
        text.replace("4096", "0"),
        text.replace("4096", "+4096"),
        text.replace("4096", "2000000000"),
        text.replace("256", "1"),
        text.replace("AAA=:", ":"),
        "md5".into(),
    ] {
        assert!(Verifier::parse(&broken).is_err(), "{broken}");
    }
}

#[test]
fn an_unknown_users_salt_is_its_own_and_stays() {
    let mock = |user| Verifier::mock(b"secret", user, 4096);
    assert_eq!(mock("ann"), mock("ann"));
    assert_ne!(mock("ann").salt, mock("bob").salt);
    assert_ne!(Verifier::mock(b"other", "ann", 4096).salt, mock("ann").salt);
}

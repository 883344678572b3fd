//! The servers that the relay uses, and those that it does not.

use holdfast_tests::postgres::{self, OwnServer};

use super::*;
use crate::state::DatabaseUrl;

async fn open(url: &str) -> Result<Store, StoreError> {
    let url = DatabaseUrl::new(url).unwrap();
    Store::open(&Database::Server(url)).await
}

#[tokio::test]
async fn server_is_verified_against_its_authority_and_name() {
    let (server, port, authority) = OwnServer::start_with_tls();
    let made = server
        .get()
        .psql("CREATE DATABASE relay TEMPLATE template0");
    made.unwrap();
    let url = |host: &str| format!("postgres://holdfast@{host}:{port}/relay?sslmode=verify-full");
    let authority = format!("&sslrootcert={}", authority.display());
    let store = open(&(url("localhost") + &authority)).await.unwrap();
    store
        .change(async |tx| tx.meta_set("over", "TLS").await)
        .await
        .unwrap();
    for (url, why) in [
        (url("localhost"), "UnknownIssuer"),
        (url("127.0.0.1") + &authority, "not valid for name"),
        (
            url("localhost") + "&sslrootcert=/nowhere/ca.pem",
            "a file that the address names",
        ),
    ] {
        let error = open(&url).await.unwrap_err().to_string();
        assert!(error.contains("cannot be reached"), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn wrong_parameter_of_an_address_is_named() {
    let error = open("postgres://holdfast@localhost/relay?sslmode=verify").await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("unknown value \"verify\""), "{error}");
}

#[tokio::test]
async fn database_of_another_encoding_is_refused() {
    let server = postgres::shared();
    let name = format!("ascii_{}", std::process::id());
    let made = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII'");
    server.psql(&made).unwrap();
    let error = open(&server.url(&name)).await.unwrap_err().to_string();
    assert!(
        error.contains("has the encoding SQL_ASCII: expected UTF8"),
        "{error}"
    );
}

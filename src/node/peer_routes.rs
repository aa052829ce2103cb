//! What the peer port answers besides the members' own protocol: who this is, for tools and for etcd's own.

use super::backend::Handle;
use super::join::CLUSTER_ID_HEADER;
use crate::http;
use crate::http::backend::Backend as _;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use serde_json::json;

pub(super) fn routes(handle: Handle) -> Router {
    Router::new()
        .route("/version", get(version))
        .route("/members", get(members))
        .route("/v2/admin/config", get(admin_config))
        .route("/v2/admin/machines", get(admin_machines))
        .route("/v2/admin/machines/{name}", get(admin_machine).delete(remove_machine))
        .with_state(handle)
}

fn as_json(body: Bytes) -> impl IntoResponse + use<> {
    ([(CONTENT_TYPE, "application/json")], body)
}

async fn admin_config(State(handle): State<Handle>) -> impl IntoResponse {
    as_json(http::config_json(&handle))
}

async fn admin_machines(State(handle): State<Handle>) -> impl IntoResponse {
    as_json(http::machines_json(&handle, None))
}

async fn admin_machine(State(handle): State<Handle>, Path(name): Path<String>) -> impl IntoResponse {
    as_json(http::machines_json(&handle, Some(name.as_bytes())))
}

async fn remove_machine(State(handle): State<Handle>, Path(name): Path<String>) -> impl IntoResponse {
    let removed = http::remove_machine(&handle, name.as_bytes()).await;
    removed.map_err(|(status, reason)| (status, as_json(reason)))
}

fn json_answer(body: &serde_json::Value) -> impl IntoResponse + use<> {
    ([(CONTENT_TYPE, "application/json")], body.to_string())
}

async fn version() -> impl IntoResponse {
    json_answer(&json!({ "quorate": env!("CARGO_PKG_VERSION") }))
}

/// As etcd 2.x has it on its peer port: an array with decimal ids.
async fn members(State(handle): State<Handle>) -> impl IntoResponse {
    let cluster = format!("{:x}", handle.status().cluster_id);
    let summary = handle.summary();
    let members: Vec<_> = summary
        .members
        .values()
        .map(|m| json!({ "id": m.id, "peerURLs": m.peer_urls, "name": m.name, "clientURLs": m.client_urls }))
        .collect();
    ([(CLUSTER_ID_HEADER, cluster)], json_answer(&json!(members)))
}

//! `GET /openapi.json`: what the server can be asked and how it answers, as OpenAPI 3.1 has it. The document
//! is written by hand and served as it stands; tests hold it to the router and to real answers.

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};

const DOCUMENT: &str = include_str!("openapi.json");

/// The document.
pub(crate) fn answer() -> Response<Body> {
    let mut response = Response::new(Body::from(DOCUMENT));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// What stands below a model's name is taken apart behind the router.
    const BELOW_MODELS: &str = "/v1/models/{*id}";

    #[test]
    fn every_route_is_in_it_and_nothing_else() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let paths = document["paths"].as_object().unwrap();
        let told: BTreeSet<String> = paths
            .keys()
            .map(|path| match path.starts_with("/v1/models/{model}") {
                true => BELOW_MODELS.to_owned(),
                false => path.clone(),
            })
            .collect();
        let router = include_str!("app.rs").split(".route(").skip(1);
        // What takes all that follows is a parameter like others.
        let routes: BTreeSet<String> = router
            .map(|route| route.split('"').nth(1).unwrap_or_default())
            .map(|path| match path {
                BELOW_MODELS => path.to_owned(),
                path => path.replace("{*", "{"),
            })
            .collect();
        assert!(routes.len() > 10, "{routes:?}");
        assert_eq!(told, routes);
    }
}

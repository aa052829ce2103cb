//! What is pure of `src/http`.

#[path = "../../src/http/calendar.rs"]
mod calendar;
#[path = "../../src/http/event_stream.rs"]
mod event_stream;
#[path = "../../src/http/extensions.rs"]
mod extensions;
#[path = "../../src/http/form.rs"]
mod form;
#[path = "../../src/http/json.rs"]
mod json;
#[path = "../../src/http/listing.rs"]
mod listing;
#[path = "../../src/http/params.rs"]
mod params;
#[path = "../../src/http/pipeline_tests.rs"]
pub mod pipeline_tests;
#[path = "../../src/http/render.rs"]
mod render;
#[path = "../../src/http/route.rs"]
mod route;
#[path = "../../src/http/view.rs"]
mod view;

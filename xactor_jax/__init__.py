"""X-Actor in JAX: a portrait and a voice become a talking-head video."""

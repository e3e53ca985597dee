"""From raw video to clips: small steps, each a pure function; xactor_jax/prepare.py runs them."""

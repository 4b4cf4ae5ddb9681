"""Keys, their checks and composing: the only room that knows Hydra."""

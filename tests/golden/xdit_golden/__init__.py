"""Makes the golden files that xdit-rs is tested against, with diffusers itself."""

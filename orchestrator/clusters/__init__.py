"""Where Ray is: so far, on this machine."""

"""How well the model servers do on real audio, measured over HTTP."""

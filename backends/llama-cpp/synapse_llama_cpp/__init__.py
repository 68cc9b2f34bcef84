"""llama.cpp's own HTTP server, started from Python packages: no compiler, no download at run time.

The OpenAI routes, ``/health``, ``/metrics``, ``/slots`` and ``/props`` are llama.cpp's.
"""

"""The package that is copied into containers: it imports only itself, the standard library, Ray and vLLM."""

"""What is copied into containers, whole: it imports itself, the standard library, Ray and vLLM, and nothing else."""

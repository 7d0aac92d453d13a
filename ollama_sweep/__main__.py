"""`python -m ollama_sweep` is `ollama-sweep`."""

from ollama_sweep.cli import main

if __name__ == "__main__":
    main()

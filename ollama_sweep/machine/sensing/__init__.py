"""What sensors say: of the processor, of GPUs, of the whole machine. One that hangs costs its own numbers only."""

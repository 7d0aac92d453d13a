"""Any server that speaks the OpenAI protocol; `lmstudio` shares its client."""

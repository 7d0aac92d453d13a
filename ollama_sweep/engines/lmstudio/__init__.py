"""LM Studio: the OpenAI protocol, with loads by its own command `lms`."""

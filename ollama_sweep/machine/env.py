"""Keys and settings from the environment or from `.env` in the working folder. A key is read here and shown nowhere."""

from __future__ import annotations

import io
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ollama_sweep.core.errors import ConfigError, EngineMissing
from ollama_sweep.machine.files import read_text

DOT_ENV = ".env"
KEY_VARIABLE = "LLM_API_KEY"
DEFAULT_KEY = "api-key"
HIDDEN = "***"
PLACEHOLDERS = frozenset(
    {DEFAULT_KEY, "dummy", "empty", "lm-studio", "none", "not-needed", "ollama", "sk-no-key-required"}
)
"""Words that people write where a server wants some key: no secrets, and they may stand in any answer."""
SHORTEST_SECRET = 4
_LIMIT_MB = 1
_KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Key:
    """A key and the variable it came from. Its value is never part of a text made of it."""

    value: str = field(repr=False)
    origin: str = ""

    @property
    def is_secret(self) -> bool:
        """It is no placeholder, so it must not be seen."""
        return len(self.value) >= SHORTEST_SECRET and self.value.lower() not in PLACEHOLDERS

    def masked(self, text: str) -> str:
        """The text without the key, also where it stands there as part of a URL or of JSON."""
        if not self.is_secret:
            return text
        in_json = json.dumps(self.value)[1:-1]
        for form in {self.value, in_json, in_json.replace("/", "\\/"), quote(self.value, safe="")}:
            text = text.replace(form, HIDDEN)
        return text


def setting(name: str) -> str | None:
    """A variable of the environment, else of `.env`; None where it is neither. Raises ConfigError."""
    return os.environ.get(name) or _dot_env().get(name) or None


def api_key(variable: str | None = None) -> Key:
    """The key in the variable named by `api_key_env`, else in LLM_API_KEY, else `api-key`.

    Raises ConfigError for a named variable that is not set, and for a key that cannot be sent.
    """
    name = variable or KEY_VARIABLE
    value = setting(name)
    if value is None and variable is not None:
        raise ConfigError(f"{variable} is set neither in the environment nor in {DOT_ENV}", "api_key_env")
    value = (value or DEFAULT_KEY).strip()
    if not _KEY.fullmatch(value):
        raise ConfigError(f"the key in {name} holds a blank, a line break or a letter outside ASCII", "api_key_env")
    return Key(value, name)


def _dot_env() -> dict[str, str]:
    """The variables of `.env`; a `$` in a value is a `$`."""
    path = Path(DOT_ENV)
    if not path.is_file():
        return {}
    try:
        import dotenv
    except ImportError:
        raise EngineMissing(f"{DOT_ENV} cannot be read. Run: pip install 'ollama-sweep[openai]'") from None
    try:
        text = read_text(path, _LIMIT_MB)
    except ConfigError as error:  # no byte of it is shown
        raise ConfigError("is not UTF-8", DOT_ENV) if "is not UTF-8" in str(error) else error from None
    found = dotenv.dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in found.items() if value}

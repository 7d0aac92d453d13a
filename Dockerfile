# The client without an Ollama: what it measures answers on the host, in another container or on another machine.
#
#   docker build -t ollama-sweep .
#   docker run --rm -it --init -v sweeps:/work ollama-sweep --help
#
# docs/faq.md says how it finds the server, and where the database may lie.
FROM python:3.12-slim

COPY pyproject.toml README.md LICENSE /source/
COPY ollama_sweep /source/ollama_sweep
COPY configs /source/configs
COPY prompts /source/prompts
RUN pip install --no-cache-dir /source && rm -rf /source \
    && useradd --create-home sweep && mkdir /work && chown sweep /work

USER sweep
WORKDIR /work
VOLUME /work
ENTRYPOINT ["ollama-sweep"]
CMD ["--help"]

"""What computer this is, from what the tools of each system print: every source, and what is left without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from answers_maker import answer

from ollama_sweep.core.outcome import AnswerRow, CellResult, Status
from ollama_sweep.machine.computer import Gpu, machine
from ollama_sweep.machine.device_report import Computer, DeviceInfo, ask, device_info
from ollama_sweep.results import hardware
from ollama_sweep.results.groups import make_groups

GIB = 2**30
FASTFETCH_MAC = [
    {"type": "Host", "result": {"family": "Mac16,6", "name": "MacBook Pro (16-inch, 2024)", "vendor": "Apple Inc."}},
    {"type": "CPU", "result": {"cpu": "Apple M4 Max", "cores": {"physical": 16}}},
    {"type": "GPU", "result": [{"name": "Apple M4 Max", "coreCount": 40, "type": "Integrated",
                                "memory": {"dedicated": {"total": None}, "shared": {"total": 40 * GIB}}}]},
]  # fmt: skip
DISPLAYS = {"SPDisplaysDataType": [{"_name": "Apple M4 Max", "sppci_model": "Apple M4 Max", "sppci_cores": "40"}]}


class Tools:
    """The commands of a computer: what the first words of a call print; anything else is not installed."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def __call__(self, command: Sequence[str]) -> str:
        line = " ".join(command)
        for words, printed in self._answers.items():
            if words.replace("_", "-") in line.replace("_", "-"):
                return printed if isinstance(printed, str) else json.dumps(printed)
        return ""


def computer(system: str, root: Path, tools: Tools, *gpus: Gpu, **changes: Any) -> Computer:
    usual: dict[str, Any] = {
        "system": system, "architecture": "x86_64", "platform": f"{system}-1", "root": root, "ask": tools,
        "gpus": lambda: gpus, "ram_bytes": 32 * GIB,
    }  # fmt: skip
    return Computer(**{**usual, **changes})


def mac(root: Path, tools: Tools, **changes: Any) -> DeviceInfo:
    return device_info(computer("Darwin", root, tools, architecture=changes.pop("architecture", "arm64")))


# -- macOS -----------------------------------------------------------------------------------------------------------


def test_a_mac_by_its_own_tools(tmp_path: Path) -> None:
    tools = Tools(**{"hw.model": "Mac16,6\n", "machdep.cpu.brand": "Apple M4 Max\n", "SPDisplaysDataType": DISPLAYS})
    assert mac(tmp_path, tools).as_dict() == {
        "platform": "Darwin-1", "device": "mps", "ram_gb": 32.0, "processor": "Apple M4 Max",
        "gpu_name": "Apple M4 Max (40 cores)", "gpu_memory_gb": "shared with system RAM", "host": "Mac16,6",
    }  # fmt: skip


def test_a_mac_by_fastfetch_alone(tmp_path: Path) -> None:
    found = mac(tmp_path, Tools(fastfetch=FASTFETCH_MAC))
    assert (found.host, found.gpu_name, found.device) == ("Mac16,6", "Apple M4 Max (40 cores)", "mps")
    assert found.processor == "Apple M4 Max"


def test_a_mac_without_any_tool_is_still_a_mac(tmp_path: Path) -> None:
    found = mac(tmp_path, Tools())
    assert (found.host, found.device, found.gpu_memory_gb) == ("custom_pc", "mps", "shared with system RAM")


def test_an_intel_mac_computes_on_its_processor(tmp_path: Path) -> None:
    cards = {"SPDisplaysDataType": [{"sppci_model": "AMD Radeon Pro 5500M", "spdisplays_vram": "8 GB"}]}
    found = mac(tmp_path, Tools(SPDisplaysDataType=cards), architecture="x86_64")
    assert (found.device, found.gpu_name, found.gpu_memory_gb) == ("cpu", "AMD Radeon Pro 5500M", 8.0)


# -- Linux -----------------------------------------------------------------------------------------------------------


def test_nvidia_cards_are_counted_and_their_memory_is_summed(tmp_path: Path) -> None:
    card = Gpu("NVIDIA L4", 24 * GIB, 20 * GIB, "550")
    found = device_info(computer("Linux", tmp_path, Tools(), card, card))
    assert (found.device, found.gpu_name, found.gpu_memory_gb) == ("cuda", "2 x NVIDIA L4", 48.0)


def test_amd_cards_by_rocm_smi(tmp_path: Path) -> None:
    answer = {"card0": {"Card Series": "AMD Radeon RX 7900 XTX", "VRAM Total Memory (B)": str(24 * GIB)}, "system": {}}
    found = device_info(computer("Linux", tmp_path, Tools(rocm_smi=answer)))
    assert (found.device, found.gpu_name, found.gpu_memory_gb) == ("rocm", "AMD Radeon RX 7900 XTX", 24.0)


CARD = {"Card Series": "AMD Radeon RX 7900 XTX", "VRAM Total Memory (B)": str(24 * GIB)}
ROCM = json.dumps({"card0": CARD}, indent=4)
LOW_POWER = "WARNING: AMD GPU device(s) is/are in a low-power state. Check power control/runtime_status\n\n"
ASIC = {"market_name": "AMD Radeon RX 7900 XTX", "vendor_id": "0x1002"}
SIZE = {"type": "GDDR6", "size": {"value": 24576, "unit": "MB"}}
XTX = ("rocm", "AMD Radeon RX 7900 XTX", 24.0)


@pytest.mark.parametrize(
    ("tool", "text", "found"),
    [
        ("rocm_smi", LOW_POWER + ROCM, XTX),
        ("rocm_smi", "[WARN] {} of [1] sensors failed {see dmesg}\n" + ROCM + "\n=== End of ROCm Log [0] ===\n", XTX),
        ("rocm_smi", "ERROR: GPU[1]: Unable to get memory " + json.dumps({"card0": CARD, "system": {}}), XTX),
        ("rocm_smi", {"card0": CARD, "card1": {"Card Series": "N/A", "Device Name": "Unable to get name"}},
         ("rocm", "AMD Radeon RX 7900 XTX, AMD GPU", None)),
        ("rocm_smi", {"card0": {"GPU ID": "0x744c"}}, ("rocm", "AMD GPU", None)),
        ("rocm_smi", {"card0": {**CARD, "VRAM Total Memory (B)": "N/A"}}, ("rocm", "AMD Radeon RX 7900 XTX", None)),
        ("rocm_smi", ROCM[:-2] + ',\n "card1": {"Card Ser', XTX),
        ("amd_smi", [{"gpu": 0, "asic": ASIC, "vram": SIZE}], XTX),
        ("amd_smi", LOW_POWER + json.dumps({"gpu_data": [{"gpu": 0, "asic": ASIC, "vram": SIZE}]}), XTX),
        ("amd_smi", [{"gpu": 0, "asic": ASIC, "vram": {"size": "24576 MB"}}], XTX),
        ("amd_smi", [{"gpu": 0, "asic": {"market_name": "N/A"}, "vram": {"size": "N/A"}}, {"gpu": 1, "asic": ASIC}],
         ("rocm", "AMD GPU, AMD Radeon RX 7900 XTX", None)),
    ],
)  # fmt: skip
def test_amd_cards_are_found_among_warnings_and_without_all_their_facts(
    tmp_path: Path, tool: str, text: Any, found: tuple[str, str, float | None]
) -> None:
    """A low-power card makes rocm-smi warn before its JSON (ROCm#5849)."""
    seen = device_info(computer("Linux", tmp_path, Tools(**{tool: text})))
    assert (seen.device, seen.gpu_name, seen.gpu_memory_gb) == found


@pytest.mark.parametrize(("can_compute", "device"), [(True, "rocm"), (False, "cpu")])
def test_amd_cards_by_the_kernels_driver(tmp_path: Path, can_compute: bool, device: str) -> None:
    card = tmp_path / "sys/class/drm/card1/device"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x1002\n")
    (card / "mem_info_vram_total").write_text(f"{16 * GIB}\n")
    other = tmp_path / "sys/class/drm/card0/device"
    other.mkdir(parents=True)
    (other / "vendor").write_text("0x8086\n")
    if can_compute:
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev/kfd").touch()
    found = device_info(computer("Linux", tmp_path, Tools()))
    assert (found.device, found.gpu_name, found.gpu_memory_gb) == (device, "AMD GPU", 16.0)


def test_an_amd_card_whose_driver_gives_no_size_is_a_card(tmp_path: Path) -> None:
    card = tmp_path / "sys/class/drm/card1/device"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x1002\n")
    (card / "product_name").write_text("AMD Instinct MI300A\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    found = device_info(computer("Linux", tmp_path, Tools(rocm_smi="ERROR: no driver", amd_smi="{")))
    assert (found.device, found.gpu_name, found.gpu_memory_gb) == ("rocm", "AMD Instinct MI300A", None)


@pytest.mark.parametrize("others", [(), (Gpu("NVIDIA L4", 24 * GIB, 20 * GIB, "550"),)])
def test_a_card_of_unknown_memory_is_cuda_and_its_memory_no_number(tmp_path: Path, others: tuple[Gpu, ...]) -> None:
    found = device_info(computer("Linux", tmp_path, Tools(), Gpu("NVIDIA GB10", None, None, "580"), *others))
    assert (found.device, found.gpu_memory_gb) == ("cuda", None)
    assert found.gpu_name is not None
    assert found.gpu_name.startswith("NVIDIA GB10")


@pytest.mark.parametrize(
    ("product", "host"),
    [
        ("ThinkPad X1 Carbon Gen 9\n", "ThinkPad X1 Carbon Gen 9"),
        ("System Product Name", "custom_pc"),
        ("To Be Filled By O.E.M.", "custom_pc"),
        ("", "custom_pc"),
    ],
)
def test_the_model_of_a_pc(tmp_path: Path, product: str, host: str) -> None:
    folder = tmp_path / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    (folder / "product_name").write_text(product)
    assert device_info(computer("Linux", tmp_path, Tools())).host == host


def test_the_model_of_a_small_board(tmp_path: Path) -> None:
    folder = tmp_path / "proc/device-tree"
    folder.mkdir(parents=True)
    (folder / "model").write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    assert device_info(computer("Linux", tmp_path, Tools())).host == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_gpu_that_only_fastfetch_knows(tmp_path: Path) -> None:
    gpu = {"name": "Arc A770", "type": "Discrete", "memory": {"dedicated": {"total": 16 * GIB}}}
    answer = [{"type": "GPU", "result": [gpu]}, {"type": "Host", "error": "none"}]
    found = device_info(computer("Linux", tmp_path, Tools(fastfetch=answer)))
    assert (found.device, found.gpu_name, found.gpu_memory_gb) == ("cpu", "Arc A770", 16.0)


def test_a_computer_without_anything(tmp_path: Path) -> None:
    found = device_info(computer("Linux", tmp_path, Tools()))
    assert (found.device, found.gpu_name, found.gpu_memory_gb, found.host) == ("cpu", None, None, "custom_pc")
    assert found.ram_gb == 32.0
    assert found.processor


# -- nonsense --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "garbage {", "[]", "{}", "null", "[1, null]", '{"SPDisplaysDataType": [4]}',
                                  '[{"type": "GPU", "result": "none"}, {"type": "Host", "result": [1]}]'])  # fmt: skip
@pytest.mark.parametrize("system", ["Linux", "Darwin"])
def test_nonsense_of_a_tool_is_not_believed_and_not_fatal(tmp_path: Path, system: str, text: str) -> None:
    tools = Tools(fastfetch=text, rocm_smi=text, SPDisplaysDataType=text)
    assert device_info(computer(system, tmp_path, tools)).host == "custom_pc"


def test_this_computer() -> None:
    found = device_info()
    assert found.device in ("cuda", "rocm", "mps", "cpu")
    assert found.ram_gb > 0
    assert found.processor


def test_a_command_that_is_missing_or_fails_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\necho half\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert ask(("tool",)) == ""
    assert ask(("no-such-tool-here",)) == ""
    program.write_text("#!/bin/sh\necho '{\"card0\": {}}'\nexit 2\n")
    assert ask(("tool",)) == '{"card0": {}}\n', "one card of several may have failed"
    program.write_text("#!/bin/sh\necho whole\n")
    assert ask(("tool",)) == "whole\n"


# -- where a model really was ----------------------------------------------------------------------------------------

LINE = "AMD EPYC, 16 cores, 128 GiB, NVIDIA L4 (22.5 GiB)"
WITH_GPU = DeviceInfo("Linux-1", "cuda", 128.0, "AMD EPYC", "NVIDIA L4", 22.5, machine=LINE)
WITHOUT = DeviceInfo("Linux-1", "cpu", 8.0, "Intel", machine="Intel, 4 cores, 8 GiB, no GPU")


def used(rows: list[AnswerRow], here: DeviceInfo, measured_on: str, vram: float | None = None) -> Any:
    """The entry of the one model in the report that `here` writes; `vram` is what its cells held on a GPU, in bytes."""
    metrics = {} if vram is None else {"size_vram_bytes": vram}
    keys = dict.fromkeys(row.cell for row in rows)
    cells = [CellResult(key, {}, rows[0].model, rows[0].task, Status.OK, metrics=metrics,
                        row={"sweep": "bench", "engine": "ollama"}) for key in keys]  # fmt: skip
    found = json.loads(hardware.hardware_file(make_groups(rows, cells), here, "", measured_on).text)
    ((model,),) = [list(task["models"].values()) for task in found["tasks"]]
    return model


def vectors(text: str, cell: str = "c1:a") -> AnswerRow:
    scores = {"embedding_dimension": 384.0, "encoding_time_s": 2.0, "rows_per_s": 50.0}
    return answer(task="embeddings", text=text, scores=scores, eval_count=None, ttft_s=None, cell=cell)


def test_the_device_of_vectors_is_the_one_that_made_them() -> None:
    """The report is written on a computer with a GPU, the vectors were made on a processor, and the other way round."""
    made = used([vectors("100 x 384 float16 on cpu")], WITH_GPU, LINE)
    assert (made["device"], made["dtype"]) == ("cpu", "float16")
    assert [run["device"] for run in made["all_runs"]] == ["cpu"]
    assert used([vectors("100 x 384 float32 on cuda")], WITHOUT, LINE)["device"] == "cuda"
    both = used([vectors("1 x 2 float32 on cpu"), vectors("1 x 2 float32 on mps", "c1:b")], WITHOUT, LINE)
    assert both["device"] == "cpu, mps"


def test_vectors_of_a_server_that_says_nothing_have_no_known_type_or_device() -> None:
    made = used([vectors("100 x 384")], WITH_GPU, LINE)
    assert (made["device"], made["dtype"]) == (None, None)
    assert (made["all_runs"][0]["device"], made["all_runs"][0]["dtype"]) == (None, None)


@pytest.mark.parametrize(
    ("vram", "is_local", "here", "measured_on", "device"),
    [
        (0.0, True, WITH_GPU, LINE, "cpu"),  # loaded into main memory beside a GPU
        (0.0, False, WITH_GPU, "another computer", "cpu"),
        (5e9, True, WITH_GPU, LINE, "cuda"),
        (5e9, False, WITH_GPU, LINE, None),  # a server elsewhere: its GPU is not known
        (5e9, True, WITH_GPU, "another computer", None),
        (5e9, True, WITHOUT, LINE, None),
        (None, True, WITH_GPU, LINE, None),  # an engine that does not say where its model lies
        (None, True, WITHOUT, WITHOUT.machine, "cpu"),
        (None, False, WITHOUT, WITHOUT.machine, None),
    ],
)
def test_the_device_of_a_chat_is_said_only_where_it_is_known(
    vram: float | None, is_local: bool, here: DeviceInfo, measured_on: str, device: str | None
) -> None:
    """`peak_rss_bytes` is known exactly where the engine's processes are on the computer of the sweep."""
    rows = [answer(peak_rss_bytes=10**9 if is_local else None)]
    assert used(rows, here, measured_on, vram)["device"] == device


def test_this_computer_knows_its_line() -> None:
    found = device_info()
    assert found.machine == machine().line()
    assert "machine" not in found.as_dict()

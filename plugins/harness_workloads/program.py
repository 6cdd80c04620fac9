"""A program of torch.export as a module that can be saved, trained and exported again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.api import BadModel, first_line


def load_program(path: Path) -> Any:
    """Return a torch.fx.GraphModule that takes the program's inputs by position.

    What ``ExportedProgram.module()`` gives cannot be pickled nor put into evaluation mode, so its graph is taken
    over into a plain module: parameters keep their names, a single output is no longer wrapped in a list.

    Raises:
        BadModel: torch cannot read the program.
    """
    import torch
    from torch.fx.graph import CodeGen

    try:
        module = torch.export.load(path).module(check_guards=False)
    except Exception as error:  # torch raises whatever its reader met; the file is the user's
        raise BadModel(
            f"model file {path} cannot be loaded by torch {torch.__version__}: {first_line(str(error))}"
        ) from error
    graph = module.graph
    graph.set_codegen(CodeGen())
    output = next(node for node in graph.nodes if node.op == "output")
    results = output.args[0]
    if isinstance(results, (tuple, list)):
        output.args = (results[0] if len(results) == 1 else tuple(results),)
    plain = torch.fx.GraphModule(module, graph)
    plain.recompile()
    return plain.eval()

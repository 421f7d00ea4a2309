"""Reads the catalog file, and refuses a wrong one with the line and the reason."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from app.catalog.spec import Catalog, ModelSpec
from app.errors import Foreseen

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, ten times as fast where libyaml is


class WrongCatalog(Foreseen):
    """The catalog cannot be used; the message names file, line and reason."""


def load_catalog(path: Path) -> Catalog:
    """Raises WrongCatalog. Weights that are a path beside the catalog come back absolute."""
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=LOADER)
        catalog = Catalog.model_validate(yaml.load(text, Loader=LOADER))  # noqa: S506 - either is a safe one
    except OSError as error:
        raise WrongCatalog(f"{path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise WrongCatalog(f"{path}, line {line}: {error.problem}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise WrongCatalog(f"{path}: this is no UTF-8 text ({error})") from error
    except ValidationError as error:
        raise WrongCatalog("\n".join(_complaints(path, root, error))) from error
    return catalog.model_copy(update={"models": [_at_home(model, path.parent) for model in catalog.models]})


def _complaints(path: Path, root: yaml.Node | None, error: ValidationError) -> list[str]:
    return [
        f"{path}, line {_line(root, problem['loc'])}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
        for problem in error.errors()[:10]
    ]


def _line(node: yaml.Node | None, loc: Sequence[int | str]) -> int:
    """The 1-based line of the deepest node on the way to `loc`."""
    for part in loc:
        inner = _child(node, part)
        if inner is None:
            break
        node = inner
    return node.start_mark.line + 1 if node else 1


def _child(node: yaml.Node | None, part: int | str) -> yaml.Node | None:
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        children = node.value[part : part + 1]
    elif isinstance(node, yaml.MappingNode):
        children = [value for key, value in node.value if key.value == str(part)]
    return children[0] if children else None


def _at_home(model: ModelSpec, home: Path) -> ModelSpec:
    local = home / model.weights
    return model.model_copy(update={"weights": str(local.resolve())}) if local.is_dir() else model

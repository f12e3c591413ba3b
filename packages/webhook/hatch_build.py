"""Makes the gRPC messages from the .proto file whenever the package is built or installed editably."""

import sys
from pathlib import Path
from typing import Any

from grpc_tools import protoc
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTO = "triolet_webhook/_proto/wkhook.proto"


class CustomBuildHook(BuildHookInterface[Any]):
    """Runs protoc in `src`; the results are not under version control."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write `wkhook_pb2.py`, its stub and `wkhook_pb2_grpc.py` beside the .proto file."""
        source = Path(self.root) / "src"
        outputs = [f"--{kind}_out={source}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", f"--proto_path={source}", *outputs, str(source / PROTO)]):
            sys.exit(f"protoc failed on {PROTO}")

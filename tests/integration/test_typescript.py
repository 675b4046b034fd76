"""The TypeScript declaration: generated from `schemas/openapi.json`, and what it takes and refuses."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from project import ROOT

TYPESCRIPT = ROOT / "clients" / "typescript"
PACKAGES = TYPESCRIPT / "node_modules"

pytestmark = pytest.mark.skipif(
    not (shutil.which("npm") and PACKAGES.is_dir()), reason="there is no Node.js, or npm could not install the packages"
)

USES = """
import type { components } from "DECLARATION";
type Input = components["schemas"]["Input"];
type Job = components["schemas"]["Job"];

export const inputs: Input[] = [
  { audio_url: "https://example.com/a.wav" },
  { audio_base64: "AAAA", timestamps: true, captions: { format: "vtt", max_lines: 1 }, segment_pause: 1.5 },
  { audio_url: "data:,", timestamps: ["word"], confidence: true, keyterms: ["a", { term: "b", boost: 2 }] },
  { action: "model_info" },
  // @ts-expect-error
  { audio_url: "data:,", language: "en" },
  // @ts-expect-error
  { audio_url: "data:,", timestamps: ["words"] },
  // @ts-expect-error
  { audio_url: "data:,", captions: { max_lines: 1 } },
];

export function read(job: Job): unknown {
  if (job.status === "FAILED") return job.output?.code === "worker_busy" ? null : [job.error, job.output?.message];
  if (job.status === "IN_PROGRESS") return job.output?.seconds_done;
  // @ts-expect-error
  if (job.status === "DONE") return null;
  // @ts-expect-error
  if (job.status === "TIMED_OUT") return job.output;
  if (job.status !== "COMPLETED") return job.id;
  if (!("text" in job.output)) return job.output.max_pass_seconds * 2;
  const { text, confidence, result_url, timestamps } = job.output;
  // @ts-expect-error
  timestamps?.word?.map((word) => word.segment);
  const words = timestamps?.word?.map(({ word, start, confidence }) => [word, start, confidence ?? 1]);
  return [text, confidence, result_url, words];
}
"""


def test_the_declaration_is_what_is_generated(tmp_path: Path) -> None:
    script = json.loads((TYPESCRIPT / "package.json").read_text())["scripts"]["types"]
    generator, *arguments, output = shlex.split(script)
    assert output == "parakeet.d.ts"
    command = [str(PACKAGES / ".bin" / generator), *arguments, str(tmp_path / output)]
    subprocess.run(command, cwd=TYPESCRIPT, capture_output=True, timeout=60, check=True)
    assert (TYPESCRIPT / "parakeet.d.ts").read_text() == (tmp_path / "parakeet.d.ts").read_text(), "run make openapi"


def test_what_the_types_take_and_refuse(tmp_path: Path) -> None:
    uses = tmp_path / "uses.ts"
    uses.write_text(USES.replace("DECLARATION", str(TYPESCRIPT / "parakeet.js")))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    options = {"noEmit": True, "skipLibCheck": False, "types": []}
    config = {"extends": str(TYPESCRIPT / "tsconfig.json"), "compilerOptions": options, "files": ["uses.ts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [str(PACKAGES / ".bin" / "tsc"), "--project", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout

// Transcribe a URL: `node example.js https://example.com/audio.wav`. ENDPOINT_ID and RUNPOD_API_KEY must be set.

import type { components } from "./parakeet.js";

type Request = components["schemas"]["Request"];
type Job = components["schemas"]["Job"];

const base = process.env.RUNPOD_ENDPOINT_BASE_URL ?? "https://api.runpod.ai/v2";
const headers = { Authorization: `Bearer ${process.env.RUNPOD_API_KEY}`, "Content-Type": "application/json" };

async function call(method: "GET" | "POST", path: string, body?: Request): Promise<Job> {
  const url = `${base}/${process.env.ENDPOINT_ID}/${path}`;
  const response = await fetch(url, { method, headers, body: body && JSON.stringify(body) });
  if (!response.ok) throw new Error(`RunPod answered ${response.status}`);
  return (await response.json()) as Job;
}

const input = { audio_url: process.argv[2], timestamps: ["word"], captions: "srt", confidence: true } satisfies Request["input"];

let job = await call("POST", "runsync", { input });
while (job.status === "IN_QUEUE" || job.status === "IN_PROGRESS") {
  await new Promise((resolve) => setTimeout(resolve, 1000));
  job = await call("GET", `status/${job.id}`);
}

if (job.status === "COMPLETED" && "text" in job.output) {
  console.log(job.output.text);
  console.log(job.output.captions);
  for (const { word, start, end } of job.output.timestamps?.word ?? []) console.log(start, end, word);
} else if (job.status === "FAILED") {
  console.log(`${job.output?.code ?? "failed"}: ${job.error}`);
} else {
  console.log(job.status);
}

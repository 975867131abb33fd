"""What FastAPI itself costs: one route that returns constant bytes, with its telemetry off as it is in the API."""

from __future__ import annotations

from fastapi import FastAPI, Response

BODY = (
    b'{"cpu_percent":11.0,"memory_usage_mb":727.40234375,"gpu_percent":null,"gpu_memory_percent":null,'
    b'"network_usage_bytes_per_second":0.0,"timestamp":1795458366.8648963}'
)

app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False}, docs_url=None, redoc_url=None)


@app.get("/constant")
async def constant() -> Response:
    """Return the same bytes each time."""
    return Response(BODY, media_type="application/json")

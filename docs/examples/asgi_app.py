"""A web application that refuses as much as it must: uvicorn asgi_app:app (pip install starlette uvicorn)."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from shm_monitor.integrations.asgi import ShedMiddleware


async def predict(request: Request) -> PlainTextResponse:
    """Do what takes memory."""
    return PlainTextResponse(f"{len(bytearray(1_000_000))} bytes were needed")


app = Starlette(routes=[Route("/predict", predict)])
app.add_middleware(ShedMiddleware, exempt=("/healthz",))

if __name__ == "__main__":
    import httpx
    from httpx import ASGITransport

    async def main() -> None:
        async with httpx.AsyncClient(transport=ASGITransport(app=app), base_url="http://here") as client:
            print((await client.get("/predict")).status_code)

    import asyncio

    asyncio.run(main())

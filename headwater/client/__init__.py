"""A client of the HTTP API: ``Client`` for threads, ``AsyncClient`` for an event loop.

Both build requests, read answers and try again by the same code (``_exchange``); they
differ only in how they send and sleep. An event keeps its ``event_id`` over all
attempts, so that one whose acknowledgement was lost is counted once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from headwater.client._exchange import (
    ASKING_STATUS,
    AnyEvent,
    Call,
    Conversation,
    Exchange,
    Outcome,
    asking_popular,
    explaining,
    headers_of,
    recommending,
    removing,
    sending,
    setting,
    similar_items,
    similar_users,
)
from headwater.types import (
    Appended,
    Explanation,
    Item,
    Recommendations,
    SimilarItems,
    SimilarUsers,
    Status,
    User,
)

__all__ = ["AsyncClient", "Client"]

DEFAULT_URL = "http://127.0.0.1:8080"

T = TypeVar("T")


class Client(Exchange):
    """A client for one thread or many; close it, or use it as a context manager.

    What the server turns away for now (429, 502, 503, 504) and what doesn't reach it
    is tried again, with growing pauses and never earlier than ``Retry-After`` says.

    Args:
        url: where the API listens.
        api_key: the server's, where it has one.
        timeout: seconds that one attempt may take.
        patience: seconds after which nothing is tried again; 0 tries once.
        transport: how httpx sends, for tests and proxies.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        patience: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, patience)
        self._http = httpx.Client(headers=headers_of(api_key), timeout=timeout, transport=transport)

    def send(self, events: AnyEvent | Sequence[AnyEvent]) -> list[Appended]:
        """Appends one event or many; returns once they are durable, with the offset of each.

        An event without ``event_id`` gets a random one, once for all attempts. A mapping has
        the fields of ``POST /v1/events``.

        Raises:
            Rejected: names field and reason of the first that was refused; ``results`` holds
                what became of each. Those not refused are stored.
            Unreachable: no answer within ``patience``; sending the same ids again is safe.
            HeadwaterError: the key is refused, or it isn't a Headwater server.
        """
        return self._append("/v1/events", sending(events))

    def recommend(
        self, user_id: str, n: int = 10, exclude: Collection[str] = (), min_offset: int = 0
    ) -> Recommendations:
        """A list for a user, by a state that holds the events up to ``min_offset``.

        Raises:
            Rejected: a parameter is out of range.
            Unreachable: as ``send``; that includes an offset that the state never came to hold.
        """
        return self._call(recommending({"user_id": user_id, "n": n}, exclude, min_offset))

    def recommend_session(self, items: Sequence[str], n: int = 10) -> Recommendations:
        """A list for somebody unknown, from the items of the session so far, newest last."""
        return self._call(recommending({"items": list(items), "n": n}, (), 0))

    def popular(self, n: int = 10) -> Recommendations:
        """What is popular now."""
        return self._call(asking_popular(n))

    def explain(self, user_id: str, n: int = 10) -> Explanation:
        """What a user's list is made from: the history, its weights, every expert's share."""
        return self._call(explaining(user_id, n))

    def similar_items(
        self, item_id: str, n: int = 10, exclude: Collection[str] = (), min_offset: int = 0
    ) -> SimilarItems:
        """What goes with an item; ``HeadwaterError`` where there is no such item."""
        return self._call(similar_items(item_id, n, exclude, min_offset))

    def similar_users(self, user_id: str, n: int = 10, min_offset: int = 0) -> SimilarUsers:
        """Who is like a user, of those with the newest events; an unknown user is like nobody."""
        return self._call(similar_users(user_id, n, min_offset))

    def put_item(self, item: Item) -> Appended:
        """Sets an item of the catalogue; raises like ``send``."""
        return self.put_items([item])[0]

    def put_items(self, items: Sequence[Item]) -> list[Appended]:
        """Sets many items of the catalogue; raises like ``send``."""
        return self._append("/v1/items", setting(items))

    def remove_item(self, item_id: str) -> Appended:
        """Removes an item: it isn't recommended again until it is set again."""
        return self._call(removing("items", item_id))

    def put_user(self, user: User) -> Appended:
        """Sets what is known of a user beside events; raises like ``send``."""
        return self.put_users([user])[0]

    def put_users(self, users: Sequence[User]) -> list[Appended]:
        """Sets many users; raises like ``send``."""
        return self._append("/v1/users", setting(users))

    def remove_user(self, user_id: str) -> Appended:
        """Hides a user: attributes and history are cleared."""
        return self._call(removing("users", user_id))

    def status(self) -> Status:
        """Where the server stands."""
        return self._call(ASKING_STATUS)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, path: str, entries: list[Any]) -> list[Appended]:
        return self._hold(self.appending(self._http, path, entries))

    def _call(self, call: Call[T]) -> T:
        return self._hold(self.converse(self._http, call))

    def _hold(self, conversation: Conversation[T]) -> T:
        try:
            wait, request = next(conversation)
            while True:
                time.sleep(wait)
                try:
                    outcome: Outcome = self._http.send(request)
                except httpx.TransportError as error:
                    outcome = error
                wait, request = conversation.send(outcome)
        except StopIteration as end:
            answer: T = end.value
            return answer


class AsyncClient(Exchange):
    """``Client`` for an event loop: the same methods, awaited."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        patience: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, patience)
        self._http = httpx.AsyncClient(
            headers=headers_of(api_key), timeout=timeout, transport=transport
        )

    async def send(self, events: AnyEvent | Sequence[AnyEvent]) -> list[Appended]:
        """See ``Client.send``."""
        return await self._append("/v1/events", sending(events))

    async def recommend(
        self, user_id: str, n: int = 10, exclude: Collection[str] = (), min_offset: int = 0
    ) -> Recommendations:
        """See ``Client.recommend``."""
        return await self._call(recommending({"user_id": user_id, "n": n}, exclude, min_offset))

    async def recommend_session(self, items: Sequence[str], n: int = 10) -> Recommendations:
        """See ``Client.recommend_session``."""
        return await self._call(recommending({"items": list(items), "n": n}, (), 0))

    async def popular(self, n: int = 10) -> Recommendations:
        """What is popular now."""
        return await self._call(asking_popular(n))

    async def explain(self, user_id: str, n: int = 10) -> Explanation:
        """See ``Client.explain``."""
        return await self._call(explaining(user_id, n))

    async def similar_items(
        self, item_id: str, n: int = 10, exclude: Collection[str] = (), min_offset: int = 0
    ) -> SimilarItems:
        """See ``Client.similar_items``."""
        return await self._call(similar_items(item_id, n, exclude, min_offset))

    async def similar_users(self, user_id: str, n: int = 10, min_offset: int = 0) -> SimilarUsers:
        """See ``Client.similar_users``."""
        return await self._call(similar_users(user_id, n, min_offset))

    async def put_item(self, item: Item) -> Appended:
        """See ``Client.put_item``."""
        return (await self.put_items([item]))[0]

    async def put_items(self, items: Sequence[Item]) -> list[Appended]:
        """See ``Client.put_items``."""
        return await self._append("/v1/items", setting(items))

    async def remove_item(self, item_id: str) -> Appended:
        """See ``Client.remove_item``."""
        return await self._call(removing("items", item_id))

    async def put_user(self, user: User) -> Appended:
        """See ``Client.put_user``."""
        return (await self.put_users([user]))[0]

    async def put_users(self, users: Sequence[User]) -> list[Appended]:
        """See ``Client.put_users``."""
        return await self._append("/v1/users", setting(users))

    async def remove_user(self, user_id: str) -> Appended:
        """See ``Client.remove_user``."""
        return await self._call(removing("users", user_id))

    async def status(self) -> Status:
        """Where the server stands."""
        return await self._call(ASKING_STATUS)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _append(self, path: str, entries: list[Any]) -> list[Appended]:
        return await self._hold(self.appending(self._http, path, entries))

    async def _call(self, call: Call[T]) -> T:
        return await self._hold(self.converse(self._http, call))

    async def _hold(self, conversation: Conversation[T]) -> T:
        try:
            wait, request = next(conversation)
            while True:
                await asyncio.sleep(wait)
                try:
                    outcome: Outcome = await self._http.send(request)
                except httpx.TransportError as error:
                    outcome = error
                wait, request = conversation.send(outcome)
        except StopIteration as end:
            answer: T = end.value
            return answer

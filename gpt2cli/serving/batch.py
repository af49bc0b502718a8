"""The texts that are generated together, and those that wait for a slot."""

import time
from collections import deque
from collections.abc import Sequence
from itertools import count

from gpt2cli.errors import GPT2Error
from gpt2cli.generation.decode import check_token
from gpt2cli.inference.decoder import Decoder
from gpt2cli.serving.jobs import Job, Seat
from gpt2cli.serving.prompt_reading import Prompt, Reading
from gpt2cli.serving.running_text import RunningText
from gpt2cli.serving.slots import make_slots
from gpt2cli.serving.text_request import PromptRead, RequestFailed, TextEvent


class Batch:
    """Texts in `slots` slots. One thread makes its turns. Other threads may read the numbers.

    waiting  the number of requests of which no text has had a slot
    nbytes   the memory of the slots
    """

    def __init__(self, decoder: Decoder, slots: int) -> None:
        self.waiting = 0
        self._decoder, self._slots = decoder, make_slots(decoder, slots)
        self.nbytes = self._slots.nbytes
        # of each slot: the text in it, and the prompt that its tokens begin with, for other texts to copy
        self._seats: list[Seat | None] = [None] * slots
        self._held: list[Prompt | None] = [None] * slots
        self._jobs = dict[Job, None]()
        self._rotation = deque[Job]()  # the jobs with texts that wait for a slot
        self._orders = count()
        self._oldest_was_read = False
        self._turn_seconds = 0.0

    @property
    def jobs(self) -> list[Job]:
        """The requests that are not complete."""
        return list(self._jobs)

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    @property
    def busy(self) -> int:
        """The number of slots that have a text."""
        return len(self._taken)

    @property
    def _taken(self) -> list[Seat]:
        return [seat for seat in self._seats if seat is not None]

    def free_in(self) -> float:
        """An estimate of the seconds until a waiting request gets a slot, at the recent speed.

        It assumes that texts grow to their largest lengths.
        """
        turns = sorted(0 if seat is None else seat.turns_left(self._slots.piece_tokens) for seat in self._seats)
        before = max(0, len(self._rotation) - self.waiting)  # slots that earlier requests take first
        return turns[min(before, len(turns) - 1)] * self._turn_seconds

    def add(self, job: Job) -> None:
        self._jobs[job] = None
        self._rotation.append(job)
        self.waiting += 1

    def remove(self, job: Job) -> None:
        """Forget a request, and make its slots free. Does nothing if it is not in the batch."""
        if job not in self._jobs:
            return
        del self._jobs[job]
        if job.waiting:
            self._rotation.remove(job)
        if not job.has_started:
            self.waiting -= 1
        for slot, seat in enumerate(self._seats):
            if seat is not None and seat.job is job:
                self._seats[slot] = None
            if job.has_prompt(self._held[slot]):
                self._held[slot] = None

    def fail(self, job: Job, error: GPT2Error) -> None:
        """End a request with an error."""
        self.remove(job)
        job.deliver(RequestFailed(error))

    def turn(self) -> None:
        """Give free slots to waiting texts, then one decoding step, then one piece of one prompt."""
        start = time.perf_counter()
        self._seat_texts()
        self._step()
        self._read_piece()
        seconds = time.perf_counter() - start
        self._turn_seconds += (seconds - self._turn_seconds) * (0.1 if self._turn_seconds else 1)

    def _seat_texts(self) -> None:
        """Requests take turns, so that one with many texts leaves slots to others."""
        while self._rotation and None in self._seats:
            job = self._rotation.popleft()
            index, request = job.waiting.popleft()
            if job.waiting:
                self._rotation.append(job)
            if not job.has_started:
                job.has_started = True
                self.waiting -= 1
            prompt = job.prompt(request)
            slot = self._free_slot(prompt)
            seat = self._seats[slot] = Seat(slot, job, prompt, RunningText(index, request))
            try:
                check_token(max(request.ids), self._decoder.config.vocab_size)
                self._give_prompt(seat)
            except GPT2Error as error:
                self.fail(job, error)

    def _free_slot(self, prompt: Prompt) -> int:
        """At best one that holds the prompt; else one whose prompt no other text needs."""

        def cost(slot: int) -> int:
            held = self._held[slot]
            return 0 if held is prompt else 1 if held is None or not held.texts_left else 2

        return min((slot for slot, seat in enumerate(self._seats) if seat is None), key=cost)

    def _give_prompt(self, seat: Seat) -> None:
        """Begin a text whose prompt a slot holds. Else read the prompt, or wait until it is read for another text."""
        readings = (other.reading for other in self._taken if other.reading)
        seat.reading = next((reading for reading in readings if reading.prompt is seat.prompt), None)
        if seat.reading is not None:
            return
        if seat.prompt in self._held:
            self._begin(seat)
        else:
            self._start_reading(seat, seat.prompt.ids, seat.prompt)

    def _start_reading(self, seat: Seat, ids: Sequence[int], prompt: Prompt | None) -> None:
        self._slots.clear(seat.slot)
        self._held[seat.slot] = None
        if ids:
            seat.reading = Reading(seat.slot, ids, next(self._orders), prompt)

    def _begin(self, seat: Seat) -> None:
        """Choose the first token of a text, whose prompt a slot holds."""
        prompt, text = seat.prompt, seat.text
        if self._held[seat.slot] is prompt:
            source = seat.slot
        else:
            source = self._held.index(prompt)
            self._slots.clear(seat.slot)
        self._slots.copy(source, seat.slot, len(prompt.ids))
        self._held[seat.slot] = prompt
        seat.job.deliver(PromptRead(text.index, prompt.logprobs))
        logits = prompt.begin_text()
        self._deliver(seat, list(text.choose(logits) if text.most_left else text.finish()))

    def _deliver(self, seat: Seat, events: list[TextEvent]) -> None:
        """Deliver events of a text. If they end it, its slot is free before the client knows.

        Its tokens stay in the slot until another text takes it.
        """
        if seat.text.is_over:
            self._seats[seat.slot] = None
            if not seat.job.waiting and all(other.job is not seat.job for other in self._taken):
                self.remove(seat.job)
        for event in events:
            seat.job.deliver(event)

    def _step(self) -> None:
        """Add a token to each text that is generated."""
        for seat in self._taken:
            if seat.reading is None and self._slots.length(seat.slot) == self._decoder.config.block_size:
                self._read_newer_half(seat)
        seats = [seat for seat in self._taken if seat.reading is None]
        if not seats:
            return
        logits = self._slots.step([seat.slot for seat in seats], [seat.text.context[-1] for seat in seats])
        for seat, row in zip(seats, logits, strict=True):
            if self._seats[seat.slot] is seat:  # not if another text of its request has failed
                try:
                    self._deliver(seat, list(seat.text.choose(row)))
                except GPT2Error as error:
                    self.fail(seat.job, error)

    def _read_newer_half(self, seat: Seat) -> None:
        """Let a text that fills the window continue with the newer half of its tokens: see `prefill.decode_next`."""
        half = max(1, self._decoder.config.block_size // 2)
        self._start_reading(seat, seat.text.context[-half:-1], None)  # the last token comes next

    def _read_piece(self) -> None:
        """Read a piece of the shortest or the oldest prompt, in turn.

        So a short prompt does not wait for a long one, and a long one advances also if short ones keep coming.
        """
        readings = [seat.reading for seat in self._taken if seat.reading is not None]
        if not readings:
            return
        oldest = min(readings, key=lambda reading: reading.order)
        shortest = min(readings, key=lambda reading: (reading.left, reading.order))
        chosen = shortest if self._oldest_was_read else oldest
        self._oldest_was_read = chosen is oldest
        seats = [seat for seat in self._taken if seat.reading is chosen]
        try:
            chosen.read_piece(self._decoder, self._slots)
            if not chosen.left:
                self._end_reading(chosen, seats)
        except GPT2Error as error:
            self.fail(seats[0].job, error)

    def _end_reading(self, reading: Reading, seats: Sequence[Seat]) -> None:
        """Let the texts go on that have waited for a reading."""
        for seat in seats:
            seat.reading = None
        if reading.prompt is not None:
            self._held[reading.slot] = reading.prompt
            for seat in seats:
                self._begin(seat)

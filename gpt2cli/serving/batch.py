"""The texts that are generated together, and those that wait for a slot."""

import time
from collections import deque
from collections.abc import Iterable, Sequence

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

    busy     the number of slots that have a text
    waiting  the number of requests of which no text has had a slot
    nbytes   the memory of the slots
    """

    def __init__(self, decoder: Decoder, slots: int) -> None:
        self.busy = self.waiting = 0
        self._decoder, self._slots = decoder, make_slots(decoder, slots)
        self.nbytes = self._slots.nbytes
        self._seats = [Seat(slot) for slot in range(slots)]
        self._jobs = dict[Job, None]()
        self._rotation = deque[Job]()  # the jobs with texts that wait for a slot
        self._readings = 0
        self._oldest_was_read = False
        self._turn_seconds = 0.0

    @property
    def jobs(self) -> list[Job]:
        """The requests that are not complete."""
        return list(self._jobs)

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    def free_in(self) -> float:
        """An estimate of the seconds until a waiting request gets a slot, at the recent speed.

        It assumes that texts grow to their largest lengths.
        """
        turns = [self._turns_left(seat.text, seat.reading) for seat in self._seats]
        before = max(0, len(self._rotation) - self.waiting)  # slots that earlier requests take first
        return sorted(turns)[min(before, len(turns) - 1)] * self._turn_seconds

    def _turns_left(self, text: RunningText | None, reading: Reading | None) -> int:
        """The most turns until a slot is free."""
        pieces = 0 if reading is None else -(-reading.left // self._slots.piece_tokens)
        return pieces + (0 if text is None else text.most_left)

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
        for seat in self._seats:
            if seat.job is job:
                self._leave(seat)
            if job.has_prompt(seat.held):
                seat.held = None

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
        while self._rotation and self.busy < len(self._seats):
            job = self._rotation.popleft()
            index, request = job.waiting.popleft()
            if job.waiting:
                self._rotation.append(job)
            if not job.has_started:
                job.has_started = True
                self.waiting -= 1
            prompt = job.prompt(request)
            free = (seat for seat in self._seats if seat.job is None)
            # at best one that holds the prompt; else one whose prompt no other text needs
            seat = min(free, key=lambda seat: (seat.held is not prompt, seat.held is not None))
            seat.job, seat.text = job, RunningText(index, request)
            self.busy += 1
            job.running += 1
            try:
                check_token(max(request.ids), self._decoder.config.vocab_size)
                self._give_prompt(seat, prompt)
            except GPT2Error as error:
                self.fail(job, error)

    def _give_prompt(self, seat: Seat, prompt: Prompt) -> None:
        """Begin a text whose prompt has been read for another one. Else read it, unless another text reads it now."""
        if any(other.reading is not None and other.reading.prompt is prompt for other in self._seats):
            return
        holder = next((other for other in self._seats if other.held is prompt), None)
        if prompt.logits is None or holder is None:
            self._start_reading(seat, prompt.ids, prompt)
            return
        if holder is not seat:
            self._slots.clear(seat.slot)
        self._slots.copy(holder.slot, seat.slot, len(prompt.ids))
        seat.held = prompt
        self._begin(seat, prompt)

    def _start_reading(self, seat: Seat, ids: Sequence[int], prompt: Prompt | None) -> None:
        self._slots.clear(seat.slot)
        seat.held, seat.is_generating = None, False
        seat.reading = Reading(seat.slot, ids, self._readings, prompt)
        self._readings += 1

    def _begin(self, seat: Seat, prompt: Prompt) -> None:
        """Choose the first token of a text."""
        assert seat.job is not None and seat.text is not None
        seat.job.deliver(PromptRead(seat.text.index, prompt.logprobs))
        logits = prompt.begin_text()
        if seat.text.request.sampling.max_new_tokens:
            seat.is_generating = True
            self._deliver(seat, seat.text.choose(logits))
        else:
            self._deliver(seat, seat.text.finish())

    def _deliver(self, seat: Seat, events: Iterable[TextEvent]) -> None:
        """Deliver events of a text. If they end it, make its slot free."""
        assert seat.job is not None and seat.text is not None
        job = seat.job
        for event in events:
            job.deliver(event)
        if seat.text.is_over:
            self._leave(seat)
            if not job.running and not job.waiting:
                self.remove(job)

    def _leave(self, seat: Seat) -> None:
        """Make a slot free. Its tokens stay until another text takes it."""
        assert seat.job is not None
        seat.job.running -= 1
        self.busy -= 1
        seat.job = seat.text = seat.reading = None
        seat.is_generating = False

    def _step(self) -> None:
        """Add a token to each text that is generated."""
        for seat in self._seats:
            if seat.is_generating and self._slots.length(seat.slot) == self._decoder.config.block_size:
                self._read_newer_half(seat)
        pairs = [(seat, seat.text) for seat in self._seats if seat.is_generating and seat.text is not None]
        if not pairs:
            return
        logits = self._slots.step([seat.slot for seat, _ in pairs], [text.context[-1] for _, text in pairs])
        for (seat, text), row in zip(pairs, logits, strict=True):
            if seat.text is text:  # not if another text of its request has failed
                try:
                    self._deliver(seat, text.choose(row))
                except GPT2Error as error:
                    assert seat.job is not None
                    self.fail(seat.job, error)

    def _read_newer_half(self, seat: Seat) -> None:
        """Let a text that fills the window continue with the newer half of its tokens: see `prefill.decode_next`."""
        assert seat.text is not None
        kept = seat.text.context[-max(1, self._decoder.config.block_size // 2) : -1]  # the last token comes next
        self._start_reading(seat, kept, None)
        if not kept:
            seat.reading, seat.is_generating = None, True

    def _read_piece(self) -> None:
        """Read a piece of the shortest or the oldest prompt, in turn.

        So a short prompt does not wait for a long one, and a long one advances also if short ones keep coming.
        """
        reading = [(seat, seat.reading) for seat in self._seats if seat.reading is not None]
        if not reading:
            return
        oldest = min(reading, key=lambda pair: pair[1].order)
        shortest = min(reading, key=lambda pair: (pair[1].left, pair[1].order))
        seat, chosen = shortest if self._oldest_was_read else oldest
        self._oldest_was_read = chosen is oldest[1]
        job = seat.job
        assert job is not None
        try:
            chosen.read_piece(self._decoder, self._slots)
            if not chosen.left:
                self._end_reading(seat, job, chosen.prompt)
        except GPT2Error as error:
            self.fail(job, error)

    def _end_reading(self, seat: Seat, job: Job, prompt: Prompt | None) -> None:
        """Go on with a text that has read its prompt, and with the texts that wait for the same prompt."""
        seat.reading = None
        if prompt is None:
            seat.is_generating = True
            return
        seat.held = prompt
        for other in self._seats:
            is_waiting = other.reading is None and not other.is_generating
            if other.job is job and is_waiting and other.text and job.prompt(other.text.request) is prompt:
                self._give_prompt(other, prompt)

package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
)

// A Range is a part of a stream: the messages of some subjects, from a sequence to
// another.
type Range struct {
	Stream   string
	Subjects []string  // filters, none of which covers another; empty: all
	First    uint64    // 0: from the beginning
	Last     uint64    // 0: to what is the end when the reading begins
	Since    time.Time // with First 0: from what was stored then on
}

// messagesPage is how many messages one request of Messages brings, of 1 MiB at the
// very most.
const messagesPage = 256

// Messages yields the messages of a range in the stream's order, and how many of them
// are still to come. It reads with a consumer of its own, which the server forgets by
// itself, and misses nothing: where the numbering has a gap it begins anew behind the
// last that came. It returns yield's error.
func Messages(ctx context.Context, js jetstream.JetStream, r Range, yield func(m contracts.Message, left uint64) error) error {
	next := max(1, r.First)
	for silent := 0; ; {
		reached, done, err := readRange(ctx, js, r, next, yield)
		switch {
		case err != nil || done:
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("reading %s from %d: %w", r.Stream, next, ctx.Err())
		case reached > next:
			next, silent = reached, 0
		default:
			if silent++; silent >= tries {
				return fmt.Errorf("reading %s from %d: no answer", r.Stream, next)
			}
		}
	}
}

// readRange reads on from a sequence as far as one consumer gives messages without a
// gap, and says where it came to.
func readRange(ctx context.Context, js jetstream.JetStream, r Range, next uint64, yield func(contracts.Message, uint64) error) (reached uint64, done bool, err error) {
	begin, cancel := context.WithTimeout(ctx, 5*time.Second)
	from := jetstream.ConsumerConfig{
		FilterSubjects: r.Subjects, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: next,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: 30 * time.Second,
	}
	if next == 1 && !r.Since.IsZero() {
		from.DeliverPolicy, from.OptStartSeq, from.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, &r.Since
	}
	c, err := js.CreateConsumer(begin, r.Stream, from)
	cancel()
	if err != nil {
		return next, false, fmt.Errorf("reading %s: %w", r.Stream, err)
	}
	left := c.CachedInfo().NumPending
	for expected := uint64(1); left > 0; {
		page, err := c.Fetch(int(min(left, messagesPage)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return next, false, ignorable(err)
		}
		came := false
		for raw := range page.Messages() {
			meta, err := raw.Metadata()
			if err != nil {
				return next, false, fmt.Errorf("reading %s: %w", r.Stream, err)
			}
			if meta.Sequence.Consumer != expected {
				return next, false, nil
			}
			if r.Last != 0 && meta.Sequence.Stream > r.Last {
				return next, true, nil
			}
			m, err := received(raw)
			if err != nil {
				return next, false, fmt.Errorf("reading %s: %w", r.Stream, err)
			}
			came = true
			// What is stored meanwhile is none of this reading's.
			expected, next, left = expected+1, m.Sequence+1, left-1
			if err := yield(m, left); err != nil {
				return next, true, err
			}
			if left == 0 {
				return next, true, nil
			}
		}
		if !came {
			return next, false, nil
		}
	}
	return next, true, nil
}

// ignorable is nil for what another try may mend.
func ignorable(err error) error {
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

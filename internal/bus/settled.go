package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Settled says whether a durable has nothing left: everything that is stored for it is
// delivered and acknowledged. The server's own count of what is pending does not tell:
// it learns of a message a moment after the publisher's acknowledgement. It takes the
// operator's rights.
func Settled(ctx context.Context, js jetstream.JetStream, stream, durable string) (bool, error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return false, fmt.Errorf("looking at the stream %s: %w", stream, err)
	}
	c, err := s.Consumer(ctx, durable)
	if err != nil {
		return false, fmt.Errorf("looking at the durable %s: %w", durable, err)
	}
	info := c.CachedInfo()
	if info.NumPending > 0 || info.NumAckPending > 0 {
		return false, nil
	}
	for _, f := range Subjects(info.Config) {
		last, err := s.GetLastMsgForSubject(ctx, f)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("looking for the last message of %s: %w", f, err)
		}
		if last.Sequence > info.Delivered.Stream {
			return false, nil
		}
	}
	return true, nil
}

// Subjects are the subjects whose messages a durable is given.
func Subjects(c jetstream.ConsumerConfig) []string {
	switch {
	case len(c.FilterSubjects) > 0:
		return c.FilterSubjects
	case c.FilterSubject != "":
		return []string{c.FilterSubject}
	default:
		return []string{">"}
	}
}

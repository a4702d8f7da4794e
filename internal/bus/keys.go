package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"leadpipe/contracts"
)

const (
	// keysPage is how many messages one request of Keys brings.
	keysPage = 5000
	// readPage is how many keys one request of Read asks for; the server answers 1024.
	readPage = 512
	// tries is how often a request of either is made before it counts as failed.
	tries = 4
)

// Keys yields the keys of the bucket that begin with one of the kinds ("lead."), in the
// stream's order, and whether each was deleted. A key that is written meanwhile may come
// twice. It reads by a consumer with these filters and no data, so that it costs nothing
// for other keys. It returns yield's error.
func Keys(ctx context.Context, js jetstream.JetStream, kinds []string, yield func(key string, revision uint64, deleted bool) error) error {
	filters := make([]string, len(kinds))
	for i, k := range kinds {
		filters[i] = contracts.SubjectOfKey(k + ">")
	}
	c, err := js.CreateConsumer(ctx, contracts.StreamCRM, jetstream.ConsumerConfig{
		FilterSubjects: filters, DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckNonePolicy,
		HeadersOnly: true, MemoryStorage: true, Replicas: 1, InactiveThreshold: 30 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("listing the bucket's keys: %w", err)
	}
	defer func() { // where that does not arrive it goes by itself
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = js.DeleteConsumer(ctx, contracts.StreamCRM, c.CachedInfo().Name)
	}()
	left := c.CachedInfo().NumPending
	for silent := 0; left > 0; {
		page, err := c.Fetch(int(min(left, keysPage)), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			return fmt.Errorf("listing the bucket's keys: %w", err)
		}
		came := false
		for m := range page.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return fmt.Errorf("listing the bucket's keys: %w", err)
			}
			came, left = true, meta.NumPending
			op := m.Headers().Get("KV-Operation")
			gone := op == "DEL" || op == "PURGE" || m.Headers().Get("Nats-Msg-Size") == "0"
			if err := yield(contracts.KeyOfSubject(m.Subject()), meta.Sequence.Stream, gone); err != nil {
				return err
			}
		}
		if came {
			silent = 0
			continue
		}
		if silent++; silent >= tries || ctx.Err() != nil {
			return fmt.Errorf("listing the bucket's keys: no answer (%w)", errors.Join(page.Error(), ctx.Err()))
		}
	}
	return nil
}

// Records yields the newest message of each key that begins with one of the kinds, some
// hundreds at a time. What Keys and Read say holds for it too.
func Records(ctx context.Context, js jetstream.JetStream, kinds []string, yield func([]contracts.Message) error) error {
	var keys []string
	page := func() error {
		if len(keys) == 0 {
			return nil
		}
		records, err := Read(ctx, js, keys)
		if keys = keys[:0]; err != nil {
			return err
		}
		return yield(records)
	}
	err := Keys(ctx, js, kinds, func(key string, _ uint64, deleted bool) error {
		if deleted {
			return nil
		}
		if keys = append(keys, key); len(keys) < readPage {
			return nil
		}
		return page()
	})
	if err != nil {
		return err
	}
	return page()
}

// Read gives the newest message of each key, many in one request; a key that has none is
// left out. On a cluster any replica may answer, a little late.
func Read(ctx context.Context, js jetstream.JetStream, keys []string) ([]contracts.Message, error) {
	var out []contracts.Message
	for len(keys) > 0 {
		n := min(len(keys), readPage)
		var page []contracts.Message
		var err error
		for range tries {
			if page, err = readOnce(ctx, js, keys[:n]); err == nil || ctx.Err() != nil {
				break
			}
		}
		if err != nil {
			return nil, fmt.Errorf("reading %d records: %w", n, err)
		}
		out, keys = append(out, page...), keys[n:]
	}
	return out, nil
}

func readOnce(ctx context.Context, js jetstream.JetStream, keys []string) ([]contracts.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	subjects := make([]string, len(keys))
	for i, k := range keys {
		subjects[i] = contracts.SubjectOfKey(k)
	}
	msgs, err := jetstreamext.GetLastMsgsFor(ctx, js, contracts.StreamCRM, subjects)
	if err != nil {
		return nil, err
	}
	var out []contracts.Message
	left := "all" // the iterator ends without a word when answers stay away
	for raw, err := range msgs {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		m := contracts.Message{Stream: contracts.StreamCRM, Subject: raw.Subject, Sequence: raw.Sequence, Time: raw.Time.UTC(), Data: raw.Data, Header: map[string]string{}, Attempt: 1}
		if op := raw.Header.Get("KV-Operation"); op != "" {
			m.Header["KV-Operation"] = op
		}
		out = append(out, m)
		left = raw.Header.Get("Nats-Num-Pending")
	}
	if left != "0" {
		return nil, fmt.Errorf("%s answers are missing", left)
	}
	return out, nil
}

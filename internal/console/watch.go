package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
)

const (
	history    = 2000                   // revisions that are read at the start, to tell of the newest webhooks
	gone       = 30 * time.Second       // after which the server forgets a watcher that is silent
	settleTime = 120 * time.Millisecond // how long a message waits for what was stored before it on the other stream
)

// watch reads a stream with a consumer of its own that leaves nothing behind, until
// take gives an error or the server does not answer.
func (c *Console) watch(ctx context.Context, stream string, cfg jetstream.ConsumerConfig, take func(jetstream.Msg, *jetstream.MsgMetadata) error) error {
	cfg.AckPolicy, cfg.MemoryStorage, cfg.InactiveThreshold, cfg.Replicas = jetstream.AckNonePolicy, true, gone, 1
	begin, cancel := context.WithTimeout(ctx, 5*time.Second)
	cons, err := c.o.JS.CreateConsumer(begin, stream, cfg)
	cancel()
	if err != nil {
		return fmt.Errorf("watching %s: %w", stream, err)
	}
	msgs, err := cons.Messages(jetstream.PullMaxMessages(500), jetstream.PullExpiry(5*time.Second))
	if err != nil {
		return fmt.Errorf("watching %s: %w", stream, err)
	}
	defer msgs.Stop()
	stop := context.AfterFunc(ctx, msgs.Stop)
	defer stop()
	for {
		m, err := msgs.Next()
		if err != nil {
			return fmt.Errorf("watching %s: %w", stream, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("watching %s: %w", stream, err)
		}
		if err := take(m, meta); err != nil {
			return err
		}
	}
}

func asMessage(m jetstream.Msg, meta *jetstream.MsgMetadata) contracts.Message {
	msg := contracts.Message{Stream: meta.Stream, Subject: m.Subject(), Data: m.Data(), Sequence: meta.Sequence.Stream, Time: meta.Timestamp}
	if op := m.Headers().Get("KV-Operation"); op == "DEL" || op == "PURGE" {
		msg.Data = nil
	}
	return msg
}

// from is where to begin: a number of messages before the end.
func (c *Console) from(ctx context.Context, stream string, back uint64) (first, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := c.o.JS.Stream(ctx, stream)
	if err != nil {
		return 0, 0, fmt.Errorf("asking for %s: %w", stream, err)
	}
	last = s.CachedInfo().State.LastSeq
	return max(1, last-min(last, back)+1), last, nil
}

// wait lets a message rest until those that were stored before it have come.
func wait(ctx context.Context, stored time.Time, rest time.Duration) {
	if d := rest - time.Since(stored); d > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
}

// resume is where a watcher goes on after an outage: behind the last that it has seen,
// unless that is very long ago or of another stream.
func resume(first, last, seen uint64) uint64 {
	if seen >= first-min(first, history) && seen <= last && seen > 0 {
		return seen + 1
	}
	return first
}

// watchWebhooks tells of the newest webhooks and of those that come.
func (c *Console) watchWebhooks(ctx context.Context) error {
	first, last, err := c.from(ctx, contracts.StreamWebhooks, shown)
	if err != nil {
		return err
	}
	c.mu.Lock()
	first = resume(first, last, c.seenWebhook)
	c.mu.Unlock()
	c.started.Do(func() { c.begun = last; close(c.begin) })
	if first > last {
		c.mu.Lock()
		c.caughtUp("webhooks")
		c.mu.Unlock()
	}
	return c.watch(ctx, contracts.StreamWebhooks, jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: first},
		func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
			msg := asMessage(m, meta)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.seenWebhook = msg.Sequence
			if msg.Sequence >= last || meta.NumPending == 0 {
				defer c.caughtUp("webhooks")
			}
			c.dirty.entry(c.book.webhook(msg, c.seal, msg.Sequence <= c.begun))
			if msg.Sequence > c.begun { // the others are counted with the hour
				c.charts.webhook(msg.Subject, msg.Time, time.Now())
				c.dirty.charts = true
			}
			return nil
		})
}

// watchRecords tells of the records that change. It keeps a little behind, so that a
// webhook is there before what it caused.
func (c *Console) watchRecords(ctx context.Context) error {
	first, last, err := c.from(ctx, contracts.StreamCRM, history)
	if err != nil {
		return err
	}
	if seen := resume(first, last, c.seenRecord); seen != first {
		first = seen
	} else {
		wait(ctx, time.Now(), settleTime) // for the newest webhooks
	}
	if first > last {
		c.mu.Lock()
		c.caughtUp("records")
		c.mu.Unlock()
	}
	return c.watch(ctx, contracts.StreamCRM, jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: first},
		func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
			msg := asMessage(m, meta)
			c.seenRecord = msg.Sequence // only here
			if msg.Sequence >= last || meta.NumPending == 0 {
				defer func() {
					c.mu.Lock()
					defer c.mu.Unlock()
					c.caughtUp("records")
				}()
			}
			ch, ok := readChange(msg)
			if !ok {
				return nil
			}
			if msg.Sequence > last {
				wait(ctx, msg.Time, settleTime)
			}
			now := time.Now()
			c.mu.Lock()
			defer c.mu.Unlock()
			if id, ok := strings.CutPrefix(ch.key, "incident."); ok && c.incidents.set(id, ch.incident) {
				c.dirty.incidents = true
			}
			if !ch.sentAt.IsZero() {
				c.charts.text(ch.key, ch.sentAt, now)
				c.dirty.charts = true
			}
			if len(msg.Data) > 0 {
				for _, e := range c.book.change(ch, msg.Sequence, msg.Time, c.seal) {
					c.dirty.entry(e)
				}
			}
			return nil
		})
}

// readHour counts what the last hour brought before this console ran: the webhooks by
// their headers alone, and the texts by their records.
func (c *Console) readHour(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.begin:
	}
	last := c.begun
	begin := time.Now().Add(-hour * time.Minute)
	counted := newCharts()
	read := func(stream string, cfg jetstream.ConsumerConfig, until uint64, count func(jetstream.Msg, *jetstream.MsgMetadata)) error {
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &begin
		quiet, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		idle := time.AfterFunc(3*time.Second, cancel) // nothing there, or the last was read
		defer idle.Stop()
		err := c.watch(quiet, stream, cfg, func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
			idle.Reset(3 * time.Second)
			if meta.Sequence.Stream <= until {
				count(m, meta)
			}
			if meta.Sequence.Stream >= until || meta.NumPending == 0 {
				return errDone
			}
			return nil
		})
		if errors.Is(err, errDone) || ctx.Err() == nil && quiet.Err() != nil {
			return nil
		}
		return err
	}
	if last > 0 {
		if err := read(contracts.StreamWebhooks, jetstream.ConsumerConfig{HeadersOnly: true}, last, func(m jetstream.Msg, meta *jetstream.MsgMetadata) {
			counted.webhook(m.Subject(), meta.Timestamp, time.Now())
		}); err != nil {
			return err
		}
	}
	c.mu.Lock()
	for at, m := range counted.minutes {
		if mine := c.charts.at(time.Unix(at*60, 0), time.Now()); mine != nil {
			mine.webhooks, mine.leads, mine.optouts = mine.webhooks+m.webhooks, mine.leads+m.leads, mine.optouts+m.optouts
		}
	}
	c.dirty.charts = true
	c.mu.Unlock()
	_, last, err := c.from(ctx, contracts.StreamCRM, history)
	if err != nil {
		return err
	}
	if err := read(contracts.StreamCRM, jetstream.ConsumerConfig{FilterSubject: contracts.SubjectOfKey("sms.>")}, last, func(m jetstream.Msg, meta *jetstream.MsgMetadata) {
		if ch, ok := readChange(asMessage(m, meta)); ok && !ch.sentAt.IsZero() {
			c.mu.Lock()
			c.charts.text(ch.key, ch.sentAt, time.Now())
			c.dirty.charts = true
			c.mu.Unlock()
		}
	}); err != nil {
		return err
	}
	return errDone
}

// readIncidents reads those that were opened before this console ran.
func (c *Console) readIncidents(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	kv, err := c.o.JS.KeyValue(ctx, contracts.Bucket)
	if err != nil {
		return fmt.Errorf("opening the bucket: %w", err)
	}
	var index contracts.IncidentIndex
	if err := read(ctx, kv, contracts.KeyIncidentIndex, &index); err != nil {
		return err
	}
	for _, x := range index.Open {
		var i contracts.Incident
		if err := read(ctx, kv, contracts.KeyIncident(x.ID), &i); err != nil {
			return err
		}
		if i.ID == "" {
			continue
		}
		c.mu.Lock()
		if _, newer := c.incidents.open[x.ID]; !newer && c.incidents.set(x.ID, &i) {
			c.dirty.incidents = true
		}
		c.mu.Unlock()
	}
	c.mu.Lock()
	c.caughtUp("incidents")
	c.mu.Unlock()
	return errDone
}

// read reads one record; one that is not there leaves v as it is.
func read(ctx context.Context, kv jetstream.KeyValue, key string, v any) error {
	entry, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the incidents: %w", err)
	}
	if err := json.Unmarshal(entry.Value(), v); err != nil {
		return fmt.Errorf("reading the incidents: %w", err)
	}
	return nil
}

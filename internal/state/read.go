package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"leadpipe/contracts"
)

// A revision is what the bucket holds on a key.
type revision struct {
	revision uint64
	data     []byte // nil: deleted
}

// fetch reads keys, many in one round trip; a key without any message is absent from
// the answer. It asks by direct get, which on a cluster any replica may answer, a
// little late: the commit then conflicts and the decision runs again. It tries until
// ctx ends.
func (s *Store) fetch(ctx context.Context, keys []string) (map[string]revision, error) {
	found := make(map[string]revision, len(keys))
	for len(keys) > 0 {
		n := min(len(keys), maxKeysARead)
		for attempt := 0; ; attempt++ {
			err := s.fetchOnce(ctx, keys[:n], found)
			if err == nil {
				break
			}
			if errors.Is(err, nats.ErrConnectionClosed) {
				return nil, fmt.Errorf("reading %d records: %w", n, err)
			}
			s.retries.Inc()
			if ctxErr := pause(ctx, attempt, 0); ctxErr != nil {
				return nil, fmt.Errorf("reading %d records: %w (last answer: %w)", n, ctxErr, err)
			}
		}
		keys = keys[n:]
	}
	return found, nil
}

func (s *Store) fetchOnce(ctx context.Context, keys []string, into map[string]revision) error {
	ctx, cancel := context.WithTimeout(ctx, s.try)
	defer cancel()
	if len(keys) == 1 {
		return s.fetchSingle(ctx, keys[0], into)
	}
	subjects := make([]string, len(keys))
	for i, k := range keys {
		subjects[i] = contracts.SubjectOfKey(k)
	}
	msgs, err := jetstreamext.GetLastMsgsFor(ctx, s.js, contracts.StreamCRM, subjects)
	if err != nil {
		return err
	}
	// The iterator ends without a word when answers stay away, so the count of those
	// still to come decides: a record that was lost on the way must not look absent.
	left := "all"
	for m, err := range msgs {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			return nil
		}
		if err != nil {
			return err
		}
		into[contracts.KeyOfSubject(m.Subject)] = asRevision(m.Sequence, m.Header, m.Data)
		left = m.Header.Get("Nats-Num-Pending")
	}
	if left != "0" {
		return fmt.Errorf("reading %d records: %s answers missing: %w", len(keys), left, nats.ErrTimeout)
	}
	return nil
}

func (s *Store) fetchSingle(ctx context.Context, key string, into map[string]revision) error {
	m, err := s.nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+contracts.StreamCRM+"."+contracts.SubjectOfKey(key), nil)
	if err != nil {
		return err
	}
	switch status := m.Header.Get("Status"); status {
	case "":
	case "404":
		return nil
	default:
		return fmt.Errorf("direct get answered %s %s", status, m.Header.Get("Description"))
	}
	seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return fmt.Errorf("direct get: reading the sequence: %w", err)
	}
	into[key] = asRevision(seq, m.Header, m.Data)
	return nil
}

// asRevision knows the markers that `nats kv del` and `nats kv purge` leave.
func asRevision(seq uint64, h nats.Header, data []byte) revision {
	if op := h.Get("KV-Operation"); op == "DEL" || op == "PURGE" || len(data) == 0 {
		return revision{revision: seq}
	}
	return revision{revision: seq, data: data}
}

// Last asks the leader of the WEBHOOKS stream for the newest message on a subject;
// false where there is none. Unlike a direct get it never answers with an older
// state than one that the leader has acknowledged.
func (s *Store) Last(ctx context.Context, subject string) (contracts.Message, bool, error) {
	return s.webhook(ctx, `{"last_by_subj":`+strconv.Quote(subject)+`}`)
}

// Webhook reads the message of the WEBHOOKS stream with a sequence; false where it is no
// longer there.
func (s *Store) Webhook(ctx context.Context, sequence uint64) (contracts.Message, bool, error) {
	return s.webhook(ctx, `{"seq":`+strconv.FormatUint(sequence, 10)+`}`)
}

func (s *Store) webhook(ctx context.Context, which string) (contracts.Message, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.try)
	defer cancel()
	m, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+contracts.StreamWebhooks, []byte(which))
	if err != nil {
		return contracts.Message{}, false, fmt.Errorf("asking the WEBHOOKS leader: %w", err)
	}
	return decodeLast(m.Data)
}

// decodeLast reads the answer of the STREAM.MSG.GET API.
func decodeLast(answer []byte) (contracts.Message, bool, error) {
	var r struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return contracts.Message{}, false, fmt.Errorf("reading the WEBHOOKS leader's answer: %w", err)
	}
	if r.Error != nil {
		if r.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return contracts.Message{}, false, nil
		}
		return contracts.Message{}, false, fmt.Errorf("asking the WEBHOOKS leader: %w", r.Error)
	}
	m := contracts.Message{
		Stream: contracts.StreamWebhooks, Subject: r.Message.Subject, Sequence: r.Message.Sequence,
		Data: r.Message.Data, Time: r.Message.Time, Header: map[string]string{},
	}
	if len(r.Message.Header) > 0 {
		h, err := nats.DecodeHeadersMsg(r.Message.Header)
		if err != nil {
			return contracts.Message{}, false, fmt.Errorf("reading the WEBHOOKS leader's headers: %w", err)
		}
		for k := range h {
			m.Header[k] = h.Get(k)
		}
		m.ID = m.Header[jetstream.MsgIDHeader]
	}
	return m, true, nil
}

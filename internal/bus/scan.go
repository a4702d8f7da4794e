package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"leadpipe/contracts"
)

// scanPage is how many messages one request of a scan brings.
const scanPage = 500

// Scan yields the newest message of every key of the crm bucket whose name keep
// accepts, markers of deleted keys included, in the stream's order. It needs no
// consumer. It returns yield's error, or what kept it from reading on.
func Scan(ctx context.Context, js jetstream.JetStream, keep func(key string) bool, yield func(contracts.Message) error) error {
	next, silent := uint64(1), 0
	for {
		page, err := jetstreamext.GetBatch(ctx, js, contracts.StreamCRM, scanPage,
			jetstreamext.GetBatchSeq(next), jetstreamext.GetBatchSubject(contracts.SubjectOfKey(">")))
		if err != nil {
			return fmt.Errorf("scanning the bucket from %d: %w", next, err)
		}
		left, came := "", false
		for raw, err := range page {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("scanning the bucket from %d: %w", next, err)
			}
			came = true
			next, left = raw.Sequence+1, raw.Header.Get("Nats-Num-Pending")
			key := contracts.KeyOfSubject(raw.Subject)
			if !keep(key) {
				continue
			}
			m := contracts.Message{Stream: contracts.StreamCRM, Subject: raw.Subject, Sequence: raw.Sequence, Time: raw.Time.UTC(), Data: raw.Data, Attempt: 1}
			if op := raw.Header.Get("KV-Operation"); op == "DEL" || op == "PURGE" {
				m.Data = nil
			}
			if err := yield(m); err != nil {
				return err
			}
		}
		// A page that ends early, for want of an answer, says how many are left: the next
		// one starts behind what came.
		switch {
		case left == "0":
			return nil
		case !came:
			if silent++; silent > 3 || ctx.Err() != nil {
				return fmt.Errorf("scanning the bucket from %d: no answer", next)
			}
		default:
			silent = 0
		}
	}
}

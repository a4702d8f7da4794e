package consumersd

import (
	"cmp"
	"context"
	"math/rand/v2"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/sms"
)

// Texts that wait for something which may never come are looked after, each process at
// times of its own: soon after the start, and from then on every five minutes.
const (
	firstLook = time.Minute
	lookEvery = 5 * time.Minute
	// askEvery is the least time between two questions to Twilio about the same text.
	askEvery = 30 * time.Minute
)

func (p *parts) lookAfterTexts(ctx context.Context, s *sms.Sender) {
	usual, asked := cmp.Or(p.cfg.LookEvery, lookEvery), time.Now()
	for every := min(firstLook, usual); ; every = usual {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every/2 + rand.N(every)):
		}
		ask := time.Since(asked) >= askEvery
		if ask {
			asked = time.Now()
		}
		round, err := s.LookAfter(ctx, func(ctx context.Context, yield func([]contracts.Message) error) error {
			return bus.Records(ctx, p.js, []string{"sms."}, yield)
		}, ask)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.log.Warn("texts not looked after", "durable", contracts.SMSSender, "reason", err.Error())
		case round != sms.Round{}:
			p.log.Info("texts were looked after", "durable", contracts.SMSSender,
				"statuses_fetched", round.Learnt, "overdue_taken_up", round.Taken)
		}
	}
}

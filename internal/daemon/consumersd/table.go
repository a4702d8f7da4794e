package consumersd

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"leadpipe/contracts"
	"leadpipe/internal/billing"
	"leadpipe/internal/blacklist"
	"leadpipe/internal/bus"
	"leadpipe/internal/leads"
	"leadpipe/internal/optouts"
	"leadpipe/internal/sheets"
	"leadpipe/internal/sms"
	"leadpipe/internal/state"
	"leadpipe/internal/twilio"
)

// A row is one durable: where it reads, how many messages it takes, and what handles
// them.
type row struct {
	durable string
	stream  string
	max     int           // messages at a time
	gather  time.Duration // wait for more after the first
	workers int           // batches side by side
	handler func(*parts, context.Context, *errgroup.Group, *state.Store) (bus.Handler, error)
}

// table is every durable there is, in the order of a webhook's way.
func table() []row {
	return []row{
		// Decide: a fold of some hundreds costs as much as one event. While one batch commits,
		// another is decoded.
		{durable: contracts.Billing, stream: contracts.StreamWebhooks, max: 400, workers: 2, handler: (*parts).billing},
		// Reads from Graph take their time, and some hang: many batches side by side, whose
		// leads are committed together as they come.
		{durable: contracts.Leads, stream: contracts.StreamWebhooks, max: 4, workers: 256, handler: (*parts).leads},
		{durable: contracts.Optouts, stream: contracts.StreamWebhooks, max: 400, handler: (*parts).optouts},
		// Carry out: while one batch waits for Twilio, another claims.
		{durable: contracts.SMSSender, stream: contracts.StreamCRM, max: 64, workers: 4, handler: (*parts).sms},
		{durable: contracts.Blacklist, stream: contracts.StreamCRM, max: 100, gather: 200 * time.Millisecond, handler: (*parts).blacklist},
		// Google takes a write a second, of any size; so changes are gathered that long
		// (GOOGLE_SHEETS_GATHER).
		{durable: contracts.Sheets, stream: contracts.StreamCRM, max: 5000, handler: (*parts).sheets},
	}
}

// parts is what rows are made of, made once for those that share it.
type parts struct {
	cfg     Config
	js      jetstream.JetStream
	log     *slog.Logger
	reg     *prometheus.Registry
	metrics *bus.Metrics

	client  *twilio.Client
	sheet   *sheets.Writer
	closing []func()
}

func (p *parts) close() {
	for _, f := range slices.Backward(p.closing) {
		f()
	}
}

// start builds a row's handler and runs its loop in g.
func (p *parts) start(ctx context.Context, g *errgroup.Group, r row) error {
	loop, err := p.loop(ctx, g, r)
	if err != nil {
		return err
	}
	g.Go(func() error { return loop.Run(ctx) })
	return nil
}

// loop builds a row's handler and its loop. What the handler does beside runs in g.
func (p *parts) loop(ctx context.Context, g *errgroup.Group, r row) (*bus.Loop, error) {
	store := p.store(r.durable)
	handle, err := r.handler(p, ctx, g, store)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.durable, err)
	}
	o := bus.Options{
		Stream: r.stream, Durable: r.durable, Handle: handle, Max: r.max, Gather: r.gather, Workers: r.workers,
		Store: store, Log: p.log, Metrics: p.metrics,
	}
	if r.durable == contracts.Sheets {
		o.Group, o.Gather, o.Wait = contracts.Sheets, p.cfg.SheetsGather, p.sheet.Wait // one writer at a time
	}
	return bus.NewLoop(p.js, o)
}

func (p *parts) billing(_ context.Context, _ *errgroup.Group, store *state.Store) (bus.Handler, error) {
	failed, err := billing.ParsePaymentFailed(p.cfg.FailedText)
	if err != nil {
		return nil, err
	}
	o := billing.Options{SuspendAfter: p.cfg.SuspendAfter, Region: p.cfg.Region, SMSMaxAge: p.cfg.SMSMaxAge, PaymentFailed: failed, Company: p.cfg.Company}
	if p.cfg.StripeKey != "" {
		reader, err := billing.NewStripe(string(p.cfg.StripeKey), p.cfg.StripeURL)
		if err != nil {
			return nil, err
		}
		o.Reader = reader
	}
	b, err := billing.New(o)
	if err != nil {
		return nil, err
	}
	parallel := 1 // preparing is decoding
	if o.Reader != nil {
		parallel = 8 // but for the rare read from Stripe, which nobody else has to wait for
	}
	return bus.Fold(contracts.Billing, store, parallel, b.Prepare, b.Decide), nil
}

func (p *parts) leads(ctx context.Context, g *errgroup.Group, store *state.Store) (bus.Handler, error) {
	welcome, err := leads.ParseWelcome(p.cfg.WelcomeText)
	if err != nil {
		return nil, err
	}
	graph, err := leads.NewGraph(leads.GraphOptions{URL: p.cfg.GraphURL, Token: string(p.cfg.FacebookToken),
		AppSecret: p.cfg.FacebookSecrets.First(), Metrics: p.reg})
	if err != nil {
		return nil, err
	}
	p.closing = append(p.closing, graph.Close)
	l, err := leads.New(leads.Options{Graph: graph, Store: store, Region: p.cfg.Region, SMSMaxAge: p.cfg.SMSMaxAge, Welcome: welcome,
		Company: p.cfg.Company, RequireConsent: p.cfg.Consent})
	if err != nil {
		return nil, err
	}
	handle := bus.Fold(contracts.Leads, store, 64, l.Prepare, l.Decide)
	g.Go(func() error {
		p.askForPending(ctx, store, handle)
		return nil
	})
	return handle, nil
}

func (p *parts) optouts(_ context.Context, _ *errgroup.Group, store *state.Store) (bus.Handler, error) {
	confirmation, err := optouts.ParseText(p.cfg.OptOutText)
	if err != nil {
		return nil, err
	}
	contact, err := optouts.ParseContact(p.cfg.ContactText)
	if err != nil {
		return nil, err
	}
	o, err := optouts.New(optouts.Options{Text: confirmation, Contact: contact, Company: p.cfg.Company, MaxAge: p.cfg.SMSMaxAge, Metrics: p.reg})
	if err != nil {
		return nil, err
	}
	return bus.Fold(contracts.Optouts, store, 1, o.Prepare, o.Decide), nil
}

func (p *parts) callTime() time.Duration { return cmp.Or(p.cfg.CallTime, sms.Timeout) }

// twilio is the connection that sms and blacklist share.
func (p *parts) twilio() (*twilio.Client, error) {
	if p.client == nil {
		c, err := twilio.New(twilio.Options{Account: p.cfg.TwilioAccount, Token: p.cfg.TwilioTokens.First(), BaseURL: p.cfg.TwilioURL,
			Timeout: p.callTime(), Conns: 64})
		if err != nil {
			return nil, err
		}
		p.client = c
		p.closing = append(p.closing, c.Close)
	}
	return p.client, nil
}

func (p *parts) sms(ctx context.Context, g *errgroup.Group, store *state.Store) (bus.Handler, error) {
	client, err := p.twilio()
	if err != nil {
		return nil, err
	}
	quiet, err := sms.ParseQuietHours(p.cfg.QuietHours)
	if err != nil {
		return nil, fmt.Errorf("SMS_QUIET_HOURS: %w", err)
	}
	s, err := sms.New(sms.Options{Store: store, Look: store.Last, Twilio: client, From: p.cfg.TwilioFrom, Service: p.cfg.TwilioService,
		PublicURL: p.cfg.PublicURL, Quiet: quiet, Lease: 3 * p.callTime(), Log: p.log.With("durable", contracts.SMSSender), Metrics: p.reg})
	if err != nil {
		return nil, err
	}
	g.Go(func() error {
		p.lookAfterTexts(ctx, s)
		return nil
	})
	return s.Handle, nil
}

func (p *parts) blacklist(_ context.Context, _ *errgroup.Group, store *state.Store) (bus.Handler, error) {
	client, err := p.twilio()
	if err != nil {
		return nil, err
	}
	b, err := blacklist.New(blacklist.Options{Store: store, Twilio: client, From: p.cfg.TwilioFrom, Service: p.cfg.TwilioService})
	if err != nil {
		return nil, err
	}
	return b.Handle, nil
}

const (
	// auditEvery is how often the spreadsheet is compared with the bucket as a whole, and
	// retryEvery how often while Google does not let us write a part of it.
	auditEvery = 5 * time.Minute
	retryEvery = 2 * time.Minute
	// firstAudit is when a process looks for the first time, the bucket be quiet or not;
	// one that is not the writer then looks every idleAudit.
	firstAudit = 20 * time.Second
	idleAudit  = time.Hour
	// dueAfter is the least pause before an audit that the writer asks for.
	dueAfter = 20 * time.Second
)

func (p *parts) sheets(ctx context.Context, g *errgroup.Group, store *state.Store) (bus.Handler, error) {
	w, err := sheets.New(ctx, sheets.Options{
		SpreadsheetID: p.cfg.SheetsID, CredentialsFile: p.cfg.SheetsCredentials, URL: p.cfg.SheetsURL,
		Reads: p.cfg.SheetsReads, Writes: p.cfg.SheetsWrites, Store: store, Registerer: p.reg,
		Keys: func(ctx context.Context, kinds []string, yield func(string, uint64, bool) error) error {
			return bus.Keys(ctx, p.js, kinds, yield)
		},
		Read: func(ctx context.Context, keys []string) ([]contracts.Message, error) {
			return bus.Read(ctx, p.js, keys)
		},
	})
	if err != nil {
		return nil, err
	}
	p.sheet = w
	// A process that has not been the writer lately audits rarely. One that no longer is
	// the writer does no harm: two end right.
	var wrote atomic.Int64
	g.Go(func() error {
		t := time.NewTicker(5 * time.Second)
		defer t.Stop()
		next, ended := time.Now().Add(firstAudit), time.Now()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-t.C:
			}
			if writer := time.Since(time.Unix(0, wrote.Load())) < idleAudit; time.Now().Before(next) && !(writer && w.Due() && time.Since(ended) > dueAfter) {
				continue
			}
			repaired, err := w.Audit(ctx)
			ended = time.Now()
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				p.log.Warn("audit of the spreadsheet not finished", "durable", contracts.Sheets, "reason", err.Error())
			case repaired > 0:
				p.log.Info("spreadsheet repaired", "durable", contracts.Sheets, "rows", repaired)
			}
			switch writer := time.Since(time.Unix(0, wrote.Load())) < idleAudit; {
			case w.Faulty():
				next = time.Now().Add(retryEvery)
			case writer || repaired > 0 || err != nil:
				next = time.Now().Add(auditEvery)
			default:
				next = time.Now().Add(idleAudit)
			}
		}
	})
	return func(ctx context.Context, msgs []contracts.Message) []error {
		wrote.Store(time.Now().UnixNano())
		return w.Handle(ctx, msgs)
	}, nil
}

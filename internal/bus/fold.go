package bus

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// Fold makes a handler of a consumer that decides. Every message of a batch is prepared
// (decoded, and read from elsewhere; parallel of them at a time), and then decided over one
// transaction that commits once, together with whatever else is prepared by then, of this
// batch or of others beside it. So what is read commits, and what is slow comes later.
// Where parallel is 1 nothing is slow, and a batch is one commit.
//
// A message that fails leaves nothing behind but what it keeps (state.Keep) and, if it ends
// here, its incident, in the same commit. prepare must not write; decide must have no
// effect but through its Tx, and may run several times.
func Fold[E any](durable string, store *state.Store, parallel int,
	prepare func(context.Context, contracts.Message) (E, error), decide func(*state.Tx, E) error,
) Handler {
	f := &folder{durable: durable, store: store}
	return func(ctx context.Context, msgs []contracts.Message) []error {
		ds := make([]*decision, len(msgs))
		var blocked atomic.Pointer[error] // once the provider refuses all, the others are not tried
		one := func(i int) {
			d := &decision{message: msgs[i]}
			ds[i] = d
			if err := blocked.Load(); err != nil {
				d.decide = func(*state.Tx) error { return *err }
				return
			}
			e, err := prepared(ctx, prepare, msgs[i])
			if err != nil && outcome.Of(err).Kind == outcome.KindBlocked {
				blocked.Store(&err)
			}
			d.decide = func(tx *state.Tx) error {
				if err != nil {
					return err
				}
				return decide(tx, e)
			}
		}
		if parallel <= 1 {
			for i := range msgs {
				one(i)
			}
			f.commit(ctx, ds...)
		} else {
			var all sync.WaitGroup
			places := make(chan struct{}, parallel)
			for i := range msgs {
				places <- struct{}{}
				all.Go(func() {
					one(i)
					<-places
					f.commit(ctx, ds[i])
				})
			}
			all.Wait()
		}
		errs := make([]error, len(msgs))
		for i, d := range ds {
			errs[i] = d.err
		}
		return errs
	}
}

func prepared[E any](ctx context.Context, prepare func(context.Context, contracts.Message) (E, error), m contracts.Message) (e E, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = outcome.Panicked(r)
		}
	}()
	return prepare(ctx, m)
}

// A decision is a message that is prepared, and in the end what became of it.
type decision struct {
	message contracts.Message
	decide  func(*state.Tx) error
	err     error
}

// A folder commits decisions, as many at a time as have gathered while the commit before
// was under way.
type folder struct {
	durable string
	store   *state.Store

	committing sync.Mutex
	mu         sync.Mutex
	waiting    []*decision
}

// commit gives each of the decisions its err. It has them committed by whoever is first to
// come to it, perhaps with others': once it was this caller's turn, they are done.
func (f *folder) commit(ctx context.Context, ds ...*decision) {
	f.mu.Lock()
	f.waiting = append(f.waiting, ds...)
	f.mu.Unlock()
	f.committing.Lock()
	defer f.committing.Unlock()
	f.mu.Lock()
	together := f.waiting
	f.waiting = nil
	f.mu.Unlock()
	if len(together) > 0 {
		f.fold(ctx, together)
	}
}

func (f *folder) fold(ctx context.Context, ds []*decision) {
	written := make([]error, len(ds)) // the error whose incident the fold has put
	errs := f.store.Fold(ctx, len(ds), func(tx *state.Tx, i int) error {
		if err := ds[i].decide(tx); err != nil {
			return err
		}
		return incident.Succeeded(tx, f.durable, ds[i].message, time.Now())
	}, func(tx *state.Tx, i int, err error) error {
		o := outcome.Of(err)
		if !final(ds[i].message, o) {
			return nil
		}
		written[i] = err
		return incident.Failed(tx, f.durable, ds[i].message, o)
	})
	for i, err := range errs {
		ds[i].err = err
		// Only if it is still this error: a commit that failed undid the incident too.
		if err != nil && written[i] == err {
			ds[i].err = &recorded{err}
		}
	}
}

package meta

import (
	"cmp"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// About is what the token is.
type About struct {
	Type       string // "PAGE" by default, or "SYSTEM_USER", "USER"
	Invalid    bool   // it was valid once
	Expires    time.Time
	Scopes     []string // its permissions; nil: those that reading leads takes
	Pages      []string // of a user that is no page: the names of its pages
	OtherApp   bool     // it belongs to another app than the secret
	Unreadable bool     // answers are no JSON
}

// appID is the app's, as in webhooks' documentation.
const appID = "200000000000001"

var tokenPaths = regexp.MustCompile(`^/v[0-9]+\.[0-9]+/(me|me/accounts|app|debug_token)$`)

// about answers what concerns the token itself. debug_token is asked as the app, by its
// id and its secret, and answers for a token that is no longer valid too.
// https://developers.facebook.com/docs/graph-api/reference/debug_token
func (s *Server) about(w http.ResponseWriter, r *http.Request, path string) {
	s.mu.Lock()
	fault, about := s.fault, s.opt.About
	s.mu.Unlock()
	var body any
	var fail *problem
	switch {
	case fault == HangUp:
		panic(http.ErrAbortHandler)
	case faults[fault] != nil:
		fail = faults[fault]
	case path == "debug_token":
		body, fail = s.debug(r, about)
	default:
		if fail = s.authenticate(r); fail == nil && about.Invalid {
			fail = bad(190, 460, "the session has been invalidated")
		}
		page := map[string]string{"id": "100000000000101", "name": "Atelier Martin"}
		switch path {
		case "app":
			page = map[string]string{"id": appID, "name": "Leadpipe"}
			body = page
		case "me/accounts":
			list := []map[string]string{}
			for _, name := range about.Pages {
				list = append(list, map[string]string{"id": "100000000000101", "name": name})
			}
			body = map[string]any{"data": list}
		default:
			body = page
		}
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	if about.Unreadable {
		_, _ = w.Write([]byte("<html>"))
		return
	}
	if fail != nil {
		p := *fail
		p.Trace = s.trace()
		w.WriteHeader(p.status)
		body = map[string]problem{"error": p}
	}
	_ = json.NewEncoder(w).Encode(body) // a caller that left is no concern of ours
}

func (s *Server) debug(r *http.Request, about About) (any, *problem) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case about.OtherApp || token != appID+"|"+s.opt.AppSecret:
		return nil, bad(190, 0, "invalid OAuth access token signature")
	case r.URL.Query().Get("input_token") != s.opt.Token:
		return nil, bad(100, 0, "(#100) you must provide an app access token, or a user access token that is an owner or developer of the app")
	}
	data := map[string]any{"app_id": appID, "type": cmp.Or(about.Type, "PAGE"), "is_valid": !about.Invalid, "expires_at": int64(0), "data_access_expires_at": int64(0),
		"scopes": []string{"leads_retrieval", "pages_show_list", "pages_manage_metadata", "pages_read_engagement"}}
	if about.Scopes != nil {
		data["scopes"] = about.Scopes
	}
	if !about.Expires.IsZero() {
		data["expires_at"] = about.Expires.Unix()
	}
	return map[string]any{"data": data}, nil
}

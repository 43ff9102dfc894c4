package agented

// Workspace says where an agent of a trigger works: in a git repository, of
// which each execution gets a worktree of its own. A trigger has it or a
// working_dir, not both.
type Workspace struct {
	Repository string   `json:"repository"`           // https, ssh or file address; {placeholders} of the prompt are filled in
	Ref        string   `json:"ref,omitempty"`        // branch, tag or commit; empty: the event's commit, else the default branch
	Depth      int      `json:"depth,omitempty"`      // of the history; 0 is all
	Paths      []string `json:"paths,omitempty"`      // folders to check out; empty: all
	Credential string   `json:"credential,omitempty"` // name of a variable in env whose value is the token for https; never in an address or a log
}

// ResumePoint is where the first attempt of an execution goes on: in a session
// that another execution began. It is set by the server only.
type ResumePoint struct {
	Session   string      `json:"session"`
	Backend   string      `json:"backend"`
	Account   AccountID   `json:"account,omitempty"`
	Execution ExecutionID `json:"execution_id"` // in whose folder it worked
	Dir       string      `json:"dir"`          // working directory, absolute
}
